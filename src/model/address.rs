//! The addresses a browser may dial, and how each was found.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where a candidate address comes from; earlier ones are preferred (diagnosis.md §4.5 order).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressSource {
    /// `--address`.
    Flag,
    /// The node's metadata service (EC2).
    Metadata,
    /// `status.addresses` of type ExternalIP.
    ExternalIp,
    /// A known annotation of the node.
    Annotation,
    /// Host of the kubeconfig's server.
    Kubeconfig,
    /// A subject alternative name of the API server's certificate.
    CertificateSan,
    /// `status.addresses` of type InternalIP.
    InternalIp,
}

/// One candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub ip: IpAddr,
    /// The name the user typed, where it was a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub source: AddressSource,
    /// The node it leads to, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl Address {
    /// As it stands in a URL: the typed name, an IPv4 address, or an IPv6 address in brackets.
    pub fn url_host(&self) -> String {
        match (&self.host, self.ip) {
            (Some(host), _) => host.clone(),
            (None, IpAddr::V4(ip)) => ip.to_string(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        }
    }
}
