//! One attempt to reach something, from one vantage, with what came of it.

use serde::{Deserialize, Serialize};

/// From where, and through what, a probe was made (diagnosis.md §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Vantage {
    /// A plain dial from where the command runs.
    Client,
    /// A dial from a network namespace of its own on this node: it passes PREROUTING and FORWARD as a stranger's packet does.
    Outsider,
    /// The API server's proxy to a pod IP; bypasses Service, kube-proxy and mesh.
    PodProxy,
    /// The API server's proxy to a node's port.
    NodeProxy,
    /// port-forward: localhost inside the pod's network namespace.
    PortForward,
    /// A plain dial from this node to a pod IP (root or not, on a node).
    NodeToPod,
    /// A dial of a pod IP from a pod on the node that the address leads to (`--probe-pod`).
    ProbePod,
    /// The same dials of an address or a pod, asking for the page in small packets.
    SmallPackets,
    /// A request through the HTTP proxy that the environment names.
    HttpProxy,
    /// The API server's way to a node's kubelet.
    Kubelet,
}

/// What came of it. The class of a failure is evidence of its own (diagnosis.md §4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// An HTTP answer; `right` says whether the expected application gave it.
    Http {
        status: u16,
        right: bool,
    },
    /// TCP connected; HTTP was not asked.
    Connected,
    /// TCP connected, then no HTTP answer within the deadline.
    Silent,
    /// TCP connected, a part of the answer came, and then nothing until the deadline.
    Stalled,
    /// RST, or ICMP port unreachable.
    Refused,
    Timeout,
    /// EHOSTUNREACH, or EINVAL of a blackhole route.
    NoRoute,
    /// ENETUNREACH.
    NetworkUnreachable,
    /// Connected, then reset.
    Reset,
    /// Connected, then closed without a byte.
    Empty,
    /// Connected, but the answer is not HTTP.
    NotHttp,
    /// Connected, but who answers speaks TLS and wants no plain HTTP.
    Tls,
    /// The host's own policy refused (EPERM, EACCES).
    Forbidden,
    /// Anything else, in the words of the system.
    Other {
        message: String,
    },
}

impl Outcome {
    /// The right application answered, with whatever status.
    pub fn is_right(&self) -> bool {
        matches!(self, Outcome::Http { right: true, .. })
    }

    /// Somebody took the connection.
    pub fn connected(&self) -> bool {
        matches!(
            self,
            Outcome::Http { .. }
                | Outcome::Connected
                | Outcome::Silent
                | Outcome::Stalled
                | Outcome::Reset
                | Outcome::Empty
                | Outcome::NotHttp
                | Outcome::Tls
        )
    }

    /// The packet vanished: no answer of any kind.
    pub fn dropped(&self) -> bool {
        matches!(self, Outcome::Timeout)
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    pub vantage: Vantage,
    /// `namespace/service` of the target it was made for; none for control ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Address dialled, without brackets: an IP for dials, `namespace/pod` or a node's name for proxies.
    pub host: String,
    pub port: u16,
    /// The node that owns the dialled address, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pod that was dialled, where the vantage dials pods (`name`, in the target's namespace).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Milliseconds until the outcome was known.
    pub millis: u64,
}
