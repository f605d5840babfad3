//! The path of a packet as a line of hops, with the break marked.

use serde::{Deserialize, Serialize};

use super::Hop;

/// How a hop fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HopState {
    Ok,
    Broken,
    Unknown,
}

/// One hop of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathHop {
    pub hop: Hop,
    /// What stands there: `203.0.113.10:30080`, a node, a Service, a pod with its port. "" for the reader and for what
    /// is not known; the renderer has words for those.
    pub label: String,
    pub state: HopState,
}
