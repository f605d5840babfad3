//! What a forward says of itself, as plain data.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::balancer::Way;
use super::carrier::tunnel::Rung;
use super::front::KernelReport;
use super::spec::{Front, Mode};
use super::watch::Over;
use crate::model::ObjectRef;
use crate::supervise::state::Position;

/// How it fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A pod is there.
    Ready,
    /// No pod is ready: connections wait.
    Parking,
    /// It stops, and lets open connections end.
    Draining,
    /// It was stopped.
    Stopped,
    /// The target or the cluster is gone; `over` says which.
    Over,
    /// Its process is no more and never said why.
    Died,
}

impl Phase {
    /// Whether the process serves connections.
    pub fn is_live(self) -> bool {
        matches!(self, Phase::Ready | Phase::Parking | Phase::Draining)
    }
}

/// The newest failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub at: Timestamp,
    pub message: String,
}

/// How connections to one pod ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodNumbers {
    pub pod: String,
    pub served: u64,
    /// The client broke off.
    pub left: u64,
    /// By RST.
    pub aborted: u64,
    /// Another pod took over.
    pub retried: u64,
}

/// How long it took to open connections to pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Opening {
    /// Upper bounds of the buckets but the last, in seconds.
    pub bounds: Vec<f64>,
    /// Connections in each bucket.
    pub counts: Vec<u64>,
    pub sum_seconds: f64,
}

/// Numbers for those who look closer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Numbers {
    /// Of the pods that are there.
    pub by_pod: Vec<PodNumbers>,
    /// Connections ended by RST, by reason.
    pub aborted: BTreeMap<String, u64>,
    pub opening: Opening,
    /// Browsers that were shown that no pod is ready.
    pub pages: u64,
    /// Tunnels and connections in them, by what became of them.
    pub tunnels: BTreeMap<String, u64>,
    /// Tunnels that the API server refused, by HTTP status; 0 where no answer came.
    pub tunnels_refused: BTreeMap<String, u64>,
}

/// One moment of a forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub id: String,
    /// `namespace/name`.
    pub target: String,
    pub object: ObjectRef,
    /// What a browser opens.
    pub urls: Vec<String>,
    pub listen: Vec<SocketAddr>,
    pub mode: Mode,
    /// The carrier of the newest connection; none before the first.
    pub carrier: Option<Way>,
    /// How the newest tunnelled connection is spoken to the API server; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_protocol: Option<Rung>,
    pub front: Front,
    /// Where its rules stand; none without rules.
    pub position: Option<Position>,
    pub position_since: Option<Timestamp>,
    /// What the kernel carries, or why it does not.
    #[serde(default)]
    pub kernel: KernelReport,
    pub phase: Phase,
    pub phase_since: Timestamp,
    /// Why it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
    /// Names of the pods that take new connections.
    pub pods: Vec<String>,
    pub started_at: Timestamp,
    pub live: u64,
    pub total: u64,
    pub parked: u64,
    pub failed: u64,
    pub retried: u64,
    pub refused: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub direct: u64,
    pub tunnel: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// Since when the API server is away, with its last words; the last known pods are used meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_lost: Option<Failure>,
    /// uid of namespace kube-system.
    pub cluster: String,
    #[serde(default)]
    pub numbers: Numbers,
}
