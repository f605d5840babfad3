//! A kubeconfig beside the client's own, which differs from it in one thing.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::cluster::Cluster;

/// Writes the client's kubeconfig to `path` on the client, as `edit` makes it.
pub fn write(cluster: &Cluster, path: &str, edit: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
    let mut config = serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "-o", "json"])?)?;
    edit(&mut config)?;
    let into = ["sh", "-c", &format!("cat > {path}")];
    cluster.client.feed(&into, &config.to_string(), Duration::from_secs(10))?.success().map(drop)
}

/// Takes it away again.
pub fn remove(cluster: &Cluster, path: &str) -> Result<()> {
    cluster.client.shell(&format!("rm -f {path}")).map(drop)
}
