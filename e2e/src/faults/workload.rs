//! The page's Deployment scaled to nothing.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use crate::app::{NAMESPACE, wait_ready};
use crate::cluster::Cluster;
use crate::condition::until;
use crate::faults::Fault;

const DEPLOYMENT: &str = "deployment/productpage-v1";

pub fn no_replicas() -> Fault {
    Fault::new(
        "replicas is 0",
        |cluster: &Cluster| {
            cluster.merge(NAMESPACE, DEPLOYMENT, &json!({"spec": {"replicas": 0}}))?;
            // It ends by itself after its drain; there is no reason to wait for that.
            let select = ["-n", NAMESPACE, "-l", "app=productpage"];
            cluster.kubectl(&[&["delete", "pods", "--grace-period=1"], &select[..]].concat())?;
            until("the page has no pod", Duration::from_secs(30), || {
                let pods = cluster.get(&[&["pods"], &select[..]].concat())?;
                ensure!(pods["items"].as_array().is_some_and(Vec::is_empty), "{}", pods["items"]);
                Ok(())
            })
        },
        |cluster: &Cluster| {
            cluster.merge(NAMESPACE, DEPLOYMENT, &json!({"spec": {"replicas": 1}}))?;
            wait_ready(cluster, NAMESPACE)
        },
    )
}
