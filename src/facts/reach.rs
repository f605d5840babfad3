//! What the probes of one target say together: does the page answer where a browser dials, and where else.

use crate::model::{Address, Probe, Snapshot, Target};

use super::ServiceFacts;

/// The probes of one target, sorted by vantage.
pub struct Reach<'a> {
    /// Dials of candidate addresses from where the command runs.
    pub client: Vec<&'a Probe>,
    /// Dials through the outsider namespace to this node.
    pub outsider: Vec<&'a Probe>,
    pub pod_proxy: Vec<&'a Probe>,
    pub node_proxy: Vec<&'a Probe>,
    pub port_forward: Vec<&'a Probe>,
    pub node_to_pod: Vec<&'a Probe>,
    /// The address a browser should use: the best candidate that answers rightly, else the best candidate.
    pub address: Option<&'a Address>,
    /// The port a browser dials: the Service's nodePort, else the one expected.
    pub port: Option<u16>,
    /// Whether the page answers at `address` as far as this standpoint can tell: on a node as root the outsider
    /// probe decides, elsewhere the client's dial. None where nobody could look.
    pub answers: Option<bool>,
}

impl<'a> Reach<'a> {
    /// Sorts the Snapshot's probes of this target.
    pub fn derive(_snapshot: &'a Snapshot, _target: &Target, _service: Option<&ServiceFacts<'a>>) -> Self {
        Self {
            client: Vec::new(),
            outsider: Vec::new(),
            pod_proxy: Vec::new(),
            node_proxy: Vec::new(),
            port_forward: Vec::new(),
            node_to_pod: Vec::new(),
            address: None,
            port: None,
            answers: None,
        }
    }
}
