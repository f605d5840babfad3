//! What this machine brings along to the look: proxies of its environment, ports that are taken, how long its credentials hold.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The machine the command runs on, as far as it matters to a browser or a forward on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Client {
    /// The proxy for plain HTTP that the environment names, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<HttpProxy>,
    /// When the certificate or token of the kubeconfig ends, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_end: Option<Timestamp>,
    /// Ports of this machine's loopback that a forward would use, and somebody else listens on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken_ports: Vec<u16>,
}

/// A proxy as the environment names it. Credentials are never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpProxy {
    /// The variable that names it.
    pub variable: String,
    /// `host:port`.
    pub host: String,
    /// What NO_PROXY spares: names, `.suffixes`, addresses, CIDRs or `*`.
    #[serde(default)]
    pub spared: Vec<String>,
}

/// How the API server answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answering {
    /// Milliseconds that a small request took; the better of two where the first was slow.
    pub millis: u64,
    /// Seconds by which its clock (the header Date) is ahead of this machine's; negative where it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead: Option<i64>,
}
