//! The Snapshot, joined: Service, port, slices, pods, nodes and the kube-proxy of each node, ready for checks to read.
//!
//! Pure. Facts say what is, never what is wrong.

pub mod cilium;
pub mod endpoints;
pub mod firewall;
pub mod index;
pub mod leader;
pub mod log;
pub mod nearest;
pub mod node;
pub mod node_ports;
pub mod other_policies;
pub mod overlap;
pub mod overlay;
pub mod passage;
pub mod placement;
pub mod pod;
pub mod policy;
pub mod proxy;
pub mod reach;
pub mod service;
pub mod spared;

use std::net::SocketAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node};

use crate::model::pod::Pod;
use crate::model::{Gap, Input, Snapshot, Target, Vantage};
use crate::parts::in_parts;

use index::About;

pub use endpoints::Endpoint;
pub use index::Index;
pub use overlap::Overlap;
pub use proxy::Proxy;
pub use reach::{Candidates, Reach};
pub use service::ServiceFacts;

/// All that is known, by target and for the cluster as a whole.
pub struct Facts<'a> {
    pub snapshot: &'a Snapshot,
    pub index: Index<'a>,
    pub proxy: Proxy<'a>,
    /// A node's address within a pod network.
    pub overlap: Option<Overlap<'a>>,
    pub targets: Vec<TargetFacts<'a>>,
}

/// All that is known of one target.
pub struct TargetFacts<'a> {
    pub target: &'a Target,
    /// The Service, its port and what belongs to it; none where it does not exist.
    pub service: Option<ServiceFacts<'a>>,
    /// What the probes of this target say together.
    pub reach: Reach<'a>,
    /// A rollout or a first start is in progress and nothing bad is known of it: worth waiting for.
    pub settling: bool,
}

impl<'a> Facts<'a> {
    /// Joins a Snapshot. Total: whatever is missing in it is missing here.
    pub fn derive(snapshot: &'a Snapshot) -> Self {
        let proxy = Proxy::derive(snapshot);
        let now = snapshot.now();
        let index = Index::of(snapshot);
        let candidates = Candidates::of(snapshot, &index);
        let of_target = |target: &'a Target| {
            let service = ServiceFacts::derive(&index, target);
            let reach = Reach::derive(snapshot, &index, &candidates, target, service.as_ref());
            let settling = service
                .as_ref()
                .is_some_and(|s| is_settling(s, now) || is_following(s, &reach, &proxy, now) || is_warming(s, now));
            TargetFacts { target, service, reach, settling }
        };
        let parts = in_parts(&snapshot.targets, |part| part.iter().map(&of_target).collect::<Vec<_>>());
        let mut facts = Self {
            snapshot,
            targets: parts.into_iter().flatten().collect(),
            index,
            proxy,
            overlap: overlap::overlap(snapshot),
        };
        // The probe's device is not the one that strangers' packets come in by: a rule may tell them apart.
        let barred: Vec<bool> = facts.targets.iter().map(|t| passage::is_barred(&facts, t)).collect();
        for (target, _) in facts.targets.iter_mut().zip(barred).filter(|(_, barred)| *barred) {
            target.reach.answers = Some(false);
        }
        facts
    }

    /// When the look was made, by the cluster's clock: the only one there is.
    pub fn now(&self) -> Timestamp {
        self.snapshot.now()
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        self.index.node(name)
    }

    /// What the application in a pod of this node listens on; none where nobody looked.
    pub fn sockets(&self, pod: &Pod) -> Option<&'a [SocketAddr]> {
        let name = format!("{}/{}", pod.metadata.namespace.as_deref()?, pod::name(pod));
        self.snapshot.host.as_ref()?.pod_sockets.get(&name).map(Vec::as_slice)
    }

    /// The message of the last warning about a pod that is of the wanted kind, by its reason and message.
    pub fn last_event(&self, namespace: &str, pod: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<&'a str> {
        let said = |e: &'a Event| (e.reason.as_deref().unwrap_or_default(), e.message.as_deref().unwrap_or_default());
        let about = self.index.events(namespace, pod).iter().copied().filter(|e| {
            let (reason, message) = said(e);
            e.type_.as_deref() == Some("Warning") && wanted(reason, message)
        });
        let last = about.max_by_key(|e| (e.last_timestamp.clone().map(|t| t.0), e.metadata.name.clone()))?;
        Some(said(last).1)
    }

    /// The gap that keeps `input` from saying anything about this target.
    pub fn gap(&self, input: Input, target: &Target) -> Option<&'a Gap> {
        let name = target.to_string();
        let mut about = vec![About::All, About::Subject(&target.namespace), About::Subject(&name)];
        // A probe's gap names the pod, node or address that was to be dialled. One that succeeded is enough.
        if let Some(vantage) = vantage(input)
            && !self.index.probes(&name).iter().any(|p| p.vantage == vantage)
        {
            about.push(match input {
                Input::PodProxy | Input::PortForward => About::Within(&target.namespace),
                _ => About::Anything,
            });
        }
        self.index.gap(input, &about)
    }
}

impl<'a> TargetFacts<'a> {
    /// The Service, where a page behind it should be reachable at a nodePort: not for a Service that was only
    /// discovered and is no NodePort, which is nobody's mistake.
    pub fn exposed(&self) -> Option<&ServiceFacts<'a>> {
        self.service.as_ref().filter(|s| s.node_port().is_some())
    }

    /// The Service, where everything up to its endpoints is sound, in the address's IP family as well, and yet no right
    /// answer is known at the address: what is left to blame lies between the browser and the pod.
    pub fn stuck(&self) -> Option<&ServiceFacts<'a>> {
        let dialled = |s: &&ServiceFacts<'a>| s.node_port() == self.reach.port;
        let served = |s: &&ServiceFacts<'a>| self.reach.address.is_none_or(|a| s.serves(a.ip));
        self.exposed().filter(dialled).filter(served).filter(|s| s.is_sound() && self.reach.answers != Some(true))
    }

    /// Whether this target is only reported on: discovered, and not meant to be seen from outside.
    pub fn is_note(&self) -> bool {
        !self.target.may_become_node_port() && self.service.as_ref().is_some_and(|s| s.node_port().is_none())
    }

    /// `IP:port` as in a URL, where both are known.
    pub fn authority(&self) -> Option<String> {
        Some(format!("{}:{}", self.reach.address?.url_host(), self.reach.port?))
    }
}

/// The vantage that an input stands for.
fn vantage(input: Input) -> Option<Vantage> {
    match input {
        Input::ClientProbe => Some(Vantage::Client),
        Input::OutsiderProbe => Some(Vantage::Outsider),
        Input::PodProxy => Some(Vantage::PodProxy),
        Input::NodeProxy => Some(Vantage::NodeProxy),
        Input::PortForward => Some(Vantage::PortForward),
        Input::HttpProxy => Some(Vantage::HttpProxy),
        _ => None,
    }
}

/// All is there, and a kube-proxy that runs on the node that is dialled has had no time yet to write its rules.
fn is_following(service: &ServiceFacts<'_>, reach: &Reach<'_>, proxy: &Proxy<'_>, now: Timestamp) -> bool {
    let young = |age: Option<i64>| age.is_some_and(|a| a < 5);
    let changed = young(service.unchanged_for(now)) || service.live_pods().any(|p| young(pod::running_for(p, now)));
    changed && service.is_sound() && reach.answers == Some(false) && reach.node.is_some_and(|n| proxy.runs_on(n))
}

/// Every pod that takes connections has only just started, and nothing says when its application is up.
fn is_warming(service: &ServiceFacts<'_>, now: Timestamp) -> bool {
    let mut usable = service.usable().peekable();
    usable.peek().is_some() && usable.all(|e| service.pod_of(e).is_some_and(|p| pod::is_warming(p, e.port, now)))
}

/// The controllers have not caught up with the Deployment yet, or pods are young, not ready and not failing.
fn is_settling(service: &ServiceFacts<'_>, now: Timestamp) -> bool {
    let starting = service.live_pods().any(|p| pod::is_starting(p, now));
    let Some(deployment) = service.deployment.filter(|_| service.deployment_matches) else { return starting };
    let wanted = service::replicas(deployment);
    let status = deployment.status.as_ref();
    let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
    let behind = deployment.metadata.generation.is_some_and(|g| observed < g);
    let age = deployment.metadata.creation_timestamp.as_ref().map(|t| now.as_second() - t.0.as_second());
    // Its first pods are not even made: a moment's matter, unless something forbids them.
    let first = wanted > 0 && service.live_pods().next().is_none() && age.is_some_and(|a| a < 10);
    // Ready, but the slices do not say so yet.
    let lagging = service.usable().next().is_none()
        && service.live_pods().any(|p| pod::is_ready(p) && pod::running_for(p, now).is_some_and(|s| s < 10));
    starting || behind || first || lagging
}
