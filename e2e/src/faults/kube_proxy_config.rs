//! kube-proxy runs, or tries to, with a configuration or rights that it cannot work with.
//!
//! What was there is put back word for word, and every kube-proxy restarted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::condition::until;
use crate::faults::Fault;
use crate::faults::kube_proxy::{NAMESPACE, delete, pods, restart_on, wait_rolled_out};

const CONFIG_MAP: &str = "configmap/kube-proxy";
const BINDING: &str = "clusterrolebinding/kubeadm:node-proxier";
const LIMIT: Duration = Duration::from_secs(60);

/// What a kube-proxy makes of a fault.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It runs on.
    Runs,
    /// It ends again and again.
    Crashes,
}

/// A value that kube-proxy does not know.
pub fn bad_mode() -> Fault {
    configured(
        "kube-proxy's mode is unknown",
        "config.conf",
        |text| edited(text, "mode:", "mode: nonsense"),
        Then::Crashes,
    )
}

/// An address that is not the API server's: packets to it get no answer.
pub fn wrong_server() -> Fault {
    let edit = |text: &str| edited(text, "    server:", "    server: https://192.0.2.1:6443");
    configured("kube-proxy asks a wrong API server", "kubeconfig.conf", edit, Then::Runs)
}

/// NodePorts are served on addresses of a network that the node has none of.
pub fn other_addresses() -> Fault {
    let edit = |text: &str| edited(text, "nodePortAddresses:", "nodePortAddresses: [\"10.99.0.0/16\"]");
    configured("nodePortAddresses leaves the address out", "config.conf", edit, Then::Runs)
}

/// The binding that lets kube-proxy read Services is gone.
pub fn rights_gone() -> Fault {
    let kept: Arc<Mutex<Option<Value>>> = Arc::default();
    let former = Arc::clone(&kept);
    Fault::new(
        "kube-proxy has lost its rights",
        move |cluster: &Cluster| {
            let binding = cluster.get(&[BINDING])?;
            put(&kept, binding)?;
            cluster.kubectl(&["delete", BINDING])?;
            restart(cluster, Then::Runs)
        },
        move |cluster: &Cluster| {
            let mut binding = take(&former)?;
            binding["metadata"] = json!({"name": binding["metadata"]["name"]});
            cluster.apply(&binding.to_string())?;
            restart(cluster, Then::Runs)?;
            wait_rolled_out(cluster)
        },
    )
}

/// The ConfigMap's file `key` is edited and every kube-proxy restarted.
fn configured(name: &str, key: &'static str, edit: fn(&str) -> String, then: Then) -> Fault {
    let kept: Arc<Mutex<Option<Value>>> = Arc::default();
    let former = Arc::clone(&kept);
    Fault::new(
        name,
        move |cluster: &Cluster| {
            let map = cluster.get(&["-n", NAMESPACE, CONFIG_MAP])?;
            put(&kept, map["data"].clone())?;
            let text = map["data"][key].as_str().with_context(|| format!("no {key}"))?;
            let edited = edit(text);
            ensure!(edited != text, "{key} is as it was: {text}");
            cluster.merge(NAMESPACE, CONFIG_MAP, &json!({"data": {key: edited}}))?;
            restart(cluster, then)
        },
        move |cluster: &Cluster| {
            let data = take(&former)?;
            cluster.merge(NAMESPACE, CONFIG_MAP, &json!({"data": data}))?;
            restart(cluster, Then::Runs)?;
            wait_rolled_out(cluster)
        },
    )
}

/// The line that begins so is replaced.
fn edited(text: &str, begin: &str, line: &str) -> String {
    let lines = text.lines().map(|old| if old.starts_with(begin) { line } else { old });
    lines.map(|line| format!("{line}\n")).collect()
}

fn restart(cluster: &Cluster, then: Then) -> Result<()> {
    if then == Then::Runs {
        return cluster.nodes.iter().try_for_each(|node| restart_on(cluster, &node.place.name));
    }
    for pod in pods(cluster, None)? {
        delete(cluster, &pod)?;
    }
    until("every kube-proxy has crashed", LIMIT, || {
        let list = cluster.get(&["-n", NAMESPACE, "pods", "-l", "k8s-app=kube-proxy"])?;
        let items = list["items"].as_array().context("not a list")?;
        let crashed = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0) > 0;
        ensure!(items.len() == cluster.nodes.len() && items.iter().all(crashed), "not all");
        Ok(())
    })
}

fn put(kept: &Mutex<Option<Value>>, value: Value) -> Result<()> {
    *kept.lock().map_err(|_| anyhow!("poisoned"))? = Some(value);
    Ok(())
}

fn take(kept: &Mutex<Option<Value>>) -> Result<Value> {
    kept.lock().ok().and_then(|mut kept| kept.take()).context("healed before injected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_replaced_by_its_beginning() {
        assert_eq!(edited("a: 1\nmode: x\n", "mode:", "mode: y"), "a: 1\nmode: y\n");
    }
}
