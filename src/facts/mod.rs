//! The Snapshot, joined: Service, port, slices, pods, nodes and the kube-proxy of each node, ready for checks to read.
//!
//! Pure. Facts say what is, never what is wrong.

pub mod endpoints;
pub mod node;
pub mod proxy;
pub mod reach;
pub mod service;

use crate::model::{Snapshot, Target};

pub use endpoints::Endpoint;
pub use proxy::Proxy;
pub use reach::Reach;
pub use service::ServiceFacts;

/// All that is known, by target and for the cluster as a whole.
pub struct Facts<'a> {
    pub snapshot: &'a Snapshot,
    pub proxy: Proxy<'a>,
    pub targets: Vec<TargetFacts<'a>>,
}

/// All that is known of one target.
pub struct TargetFacts<'a> {
    pub target: &'a Target,
    /// The Service, its port and what belongs to it; none where it does not exist.
    pub service: Option<ServiceFacts<'a>>,
    /// What the probes of this target say together.
    pub reach: Reach<'a>,
}

impl<'a> Facts<'a> {
    /// Joins a Snapshot. Total: whatever is missing in it is missing here.
    pub fn derive(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            proxy: Proxy::derive(snapshot),
            targets: snapshot
                .targets
                .iter()
                .map(|target| {
                    let service = ServiceFacts::derive(snapshot, target);
                    let reach = Reach::derive(snapshot, target, service.as_ref());
                    TargetFacts { target, service, reach }
                })
                .collect(),
        }
    }
}
