//! NetworkPolicies: objects that say no, whoever enforces them.

use anyhow::Result;
use serde_json::json;

use crate::app::NAMESPACE;
use crate::cluster::Cluster;
use crate::faults::Fault;

/// Nobody may send anything to any pod of the page's namespace.
pub fn denies_all() -> Fault {
    let apply = |cluster: &Cluster| -> Result<()> {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny-all", "namespace": NAMESPACE},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        });
        cluster.apply(&policy.to_string())
    };
    // It is gone with its namespace's content before the next scenario.
    Fault::new("a NetworkPolicy denies all ingress", apply, |_: &Cluster| Ok(()))
}
