//! Users who may do less than the command would like.

use anyhow::Result;
use serde_json::json;

use crate::cluster::Cluster;
use crate::faults::Fault;

/// Whom [`only_view`] lets view.
pub const VIEWER: &str = "bookaccess-e2e-viewer";

/// A user with the ClusterRole `view` and nothing more: no nodes, no proxies, no port-forward.
pub fn only_view() -> Fault {
    let bind = |cluster: &Cluster| -> Result<()> {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": VIEWER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": VIEWER}],
        });
        cluster.apply(&binding.to_string())
    };
    Fault::new("a user may only view", bind, |cluster: &Cluster| {
        cluster.kubectl(&["delete", "clusterrolebinding", VIEWER, "--ignore-not-found"]).map(drop)
    })
}
