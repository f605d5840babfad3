//! A service mesh's proxy before the pod that ends in a certain way what the application inside would have answered.

use crate::facts::{TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{Finding, Outcome, Probe};

/// What shows that it was the proxy and not the application.
pub(crate) struct Stopped<'a> {
    pub pod: &'a Pod,
    /// At the address that browsers dial.
    arrived: &'a Probe,
    /// At the pod's address, where the proxy stands as well.
    pub to_pod: Vec<&'a Probe>,
    /// Inside the pod, past the proxy.
    inside: &'a Probe,
}

/// The pod guarded by such a proxy at which every way from outside ends so, while the page answers inside: an application
/// that does so itself does so there as well.
pub(crate) fn stopped<'a>(
    target: &TargetFacts<'a>,
    is_guarded: impl Fn(&Pod) -> bool,
    ended: impl Fn(&Outcome) -> bool,
) -> Option<Stopped<'a>> {
    let service = target.stuck()?;
    let reach = &target.reach;
    let arrived = reach.decisive.iter().copied().find(|p| ended(&p.outcome))?;
    let guarded = service.usable().filter_map(|e| service.pod_of(e)).find(|p| is_guarded(p))?;
    let to_pod: Vec<&Probe> = reach.to_pod(pod::name(guarded)).collect();
    let inside = reach.port_forward.iter().copied().find(|p| p.pod.as_deref() == Some(pod::name(guarded)))?;
    let proven = inside.outcome.is_right() && to_pod.iter().all(|p| ended(&p.outcome));
    proven.then_some(Stopped { pod: guarded, arrived, to_pod, inside })
}

impl Stopped<'_> {
    /// The probes as evidence, in the order in which a packet meets their ends.
    pub(crate) fn tell(&self, found: Finding) -> Finding {
        found.because_of([self.arrived]).because_of(self.to_pod.iter().copied()).because_of([self.inside])
    }
}
