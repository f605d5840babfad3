//! What the user wants to reach in a browser.

use serde::{Deserialize, Serialize};

use super::{ObjectRef, PortRef};

/// One page behind one Service port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub namespace: String,
    /// Name of the Service. It need not exist: that is a finding, not an error.
    pub service: String,
    /// Which port of the Service, where it was named; else the one with the expected nodePort, else `http*`, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRef>,
    /// The nodePort a browser is expected to dial (30080 for productpage, 30300 for Grafana).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
    /// Path of the page, with its leading slash.
    pub path: String,
    /// The path that the application is known by, where another one was typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_path: Option<String>,
    /// The address was typed with `https://`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub https: bool,
    /// Text that only the right application's answer holds; without it any HTTP answer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Named on the command line. Only such a target, or productpage itself, may change its type.
    pub named: bool,
}

impl Target {
    /// The Service as an object.
    pub fn service_ref(&self) -> ObjectRef {
        ObjectRef::namespaced("Service", &self.namespace, &self.service)
    }

    /// Whether a repair may turn the Service into a NodePort: it was named by the user, or is the page this tool is for.
    pub fn may_become_node_port(&self) -> bool {
        self.named || self.service == "productpage"
    }
}

/// `bookinfo/productpage`, as the user types it.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}
