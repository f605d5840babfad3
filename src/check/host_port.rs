//! Pods of the page that wait for a port of a node which somebody else has.

use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;

/// A pod that the scheduler cannot place for want of a port.
pub(crate) struct Waiting<'a> {
    pub pod: &'a Pod,
    pub port: u16,
    /// The scheduler's word.
    pub why: &'a str,
    /// The pod of these namespaces that has the port, where it is one.
    pub holder: Option<&'a Pod>,
}

/// The pod of the page that waits so; `own`: for one that belongs to the page as well, or for a stranger.
pub(crate) fn waiting<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>, own: bool) -> Option<Waiting<'a>> {
    let service = target.service.as_ref()?;
    let (pod, why) = service.live_pods().find_map(|p| {
        let why = pod::unschedulable(p).filter(|why| why.contains("free ports"))?;
        Some((p, why))
    })?;
    let wanted = pod::host_ports(pod::containers(pod));
    let port = wanted.first().copied()?;
    let has = |p: &&Pod| {
        pod::is_live(p)
            && pod::node(p).is_some()
            && pod::host_ports(pod::containers(p)).iter().any(|h| wanted.contains(h))
    };
    let holder = facts.snapshot.objects.pods.iter().filter(has).min_by_key(|p| pod::name(p));
    let mine = |p: &Pod| service.pods.iter().any(|own| pod::name(own) == pod::name(p));
    (holder.is_some_and(mine) == own).then_some(Waiting { pod, port, why, holder })
}
