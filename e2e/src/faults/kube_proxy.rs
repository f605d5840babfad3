//! kube-proxy runs nowhere, or not on one node. Its rules stay where they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Node, is_k3s};
use crate::condition::until;
use crate::faults::Fault;

pub const NAMESPACE: &str = "kube-system";
pub const DAEMON_SET: &str = "daemonset/kube-proxy";
/// How the files begin that [`remember`] writes.
const REMEMBERED: &str = "e2e-kube-proxy-";
const LIMIT: Duration = Duration::from_secs(60);

/// A nodeSelector that no node satisfies, as an operator's leftover. A cluster without kube-proxy is broken as it is.
pub fn unscheduled() -> Fault {
    Fault::new(
        "kube-proxy is scheduled nowhere",
        |cluster| {
            if !cluster.has_kube_proxy() {
                return Ok(());
            }
            remember(cluster)?;
            let selector = json!({"spec": {"template": {"spec": {"nodeSelector": {"non-kube-proxy": "true"}}}}});
            cluster.merge(NAMESPACE, DAEMON_SET, &selector)?;
            until("no kube-proxy pod is left", LIMIT, || {
                let left = pods(cluster, None)?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })
        },
        restore,
    )
}

/// The code that leads where kube-proxy runs nowhere: it is not scheduled, k3s was told to run none, or there is none.
pub fn nowhere(cluster: &Cluster) -> &'static str {
    match is_k3s(&cluster.provider) {
        _ if cluster.has_kube_proxy() => "BA3002",
        true => "BA3016",
        false => "BA3001",
    }
}

/// A node affinity that leaves one node out.
pub fn excluded_from(node: &str) -> Fault {
    let node = node.to_owned();
    Fault::new(
        format!("kube-proxy is excluded from {node}"),
        move |cluster| {
            remember(cluster)?;
            let others = json!([{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}]);
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": others}]}}});
            let patch = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
            cluster.merge(NAMESPACE, DAEMON_SET, &patch)?;
            until("the node's kube-proxy pod is gone", LIMIT, || {
                let left = pods(cluster, Some(&node))?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })?;
            // The template changed, so the others are replaced: until they are back, more is broken than meant.
            wait_rolled_out(cluster)
        },
        restore,
    )
}

/// The DaemonSet is deleted.
pub fn absent() -> Fault {
    Fault::new(
        "there is no kube-proxy",
        |cluster| {
            remember(cluster)?;
            cluster.kubectl(&["delete", "-n", NAMESPACE, DAEMON_SET])?;
            until("no kube-proxy pod is left", LIMIT, || {
                let left = pods(cluster, None)?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })
        },
        restore,
    )
}

/// Puts the DaemonSet back as it was before the first fault, and waits until it runs everywhere.
pub fn restore(cluster: &Cluster) -> Result<()> {
    if !cluster.has_kube_proxy_set() {
        return Ok(());
    }
    if cluster.kubectl(&["get", "-n", NAMESPACE, DAEMON_SET, "--ignore-not-found", "-o", "name"])?.is_empty() {
        make_again(cluster)?;
    }
    let (pristine, now) = remember(cluster)?;
    if now["spec"] != pristine["spec"] {
        let template = &pristine["spec"]["template"];
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        cluster.json_patch(NAMESPACE, DAEMON_SET, &patch)?;
    }
    wait_rolled_out(cluster)?;
    for node in &cluster.nodes {
        dns_answers(cluster, node)?;
    }
    Ok(())
}

/// Waits until the cluster's DNS can be reached through the node's rules: a rolled-out kube-proxy that has not written
/// them would be blamed on the next scenario.
fn dns_answers(cluster: &Cluster, node: &Node) -> Result<()> {
    let service = cluster.get(&["-n", NAMESPACE, "service/kube-dns"])?;
    let address = service["spec"]["clusterIP"].as_str().context("kube-dns without address")?;
    let dial = format!("timeout 2 bash -c '</dev/tcp/{address}/53'");
    until(&format!("DNS through the rules of {}", node.place.name), Duration::from_secs(30), || {
        node.place.shell(&dial).map(drop)
    })
}

/// Waits until every scheduled kube-proxy pod is of the newest template and ready.
pub fn wait_rolled_out(cluster: &Cluster) -> Result<()> {
    if !cluster.has_kube_proxy_set() {
        return Ok(());
    }
    until("kube-proxy is rolled out", LIMIT, || {
        let set = cluster.get(&["-n", NAMESPACE, DAEMON_SET])?;
        let (status, wanted) = (&set["status"], &set["status"]["desiredNumberScheduled"]);
        ensure!(
            status["observedGeneration"] == set["metadata"]["generation"]
                && *wanted != 0
                && status["updatedNumberScheduled"] == *wanted
                && status["numberReady"] == *wanted
                && status["currentNumberScheduled"] == *wanted,
            "{status}"
        );
        Ok(())
    })
}

/// The kube-proxy of one node is restarted.
pub fn restarted_on(node: &str) -> Fault {
    let node = node.to_owned();
    let nothing = |_: &Cluster| Ok(());
    Fault::new(format!("kube-proxy of {node} is restarted"), move |cluster| restart_on(cluster, &node), nothing)
}

/// Deletes a kube-proxy's pod, unless it is gone already, and does not wait for it.
pub fn delete(cluster: &Cluster, pod: &str) -> Result<()> {
    let now = ["--grace-period=1", "--wait=false", "--ignore-not-found"];
    cluster.kubectl(&[&["delete", "pod", "-n", NAMESPACE, pod], &now[..]].concat()).map(drop)
}

/// Restarts the kube-proxy of one node, which writes its rules anew.
pub fn restart_on(cluster: &Cluster, node: &str) -> Result<()> {
    if !cluster.has_kube_proxy() {
        return Ok(());
    }
    let old = pods(cluster, Some(node))?;
    for pod in &old {
        delete(cluster, pod)?;
    }
    until(&format!("a new kube-proxy pod on {node} is ready"), LIMIT, || {
        let now = pods(cluster, Some(node))?;
        ensure!(now.len() == 1 && !old.contains(&now[0]), "{now:?}");
        let pod = cluster.get(&["-n", NAMESPACE, "pod", &now[0]])?;
        let ready = &pod["status"]["containerStatuses"][0]["ready"];
        ensure!(*ready == true, "{}", pod["status"]);
        Ok(())
    })?;
    wait_rolled_out(cluster)
}

/// The names of kube-proxy's pods, all or one node's.
pub fn pods(cluster: &Cluster, node: Option<&str>) -> Result<Vec<String>> {
    let list = cluster.get(&["-n", NAMESPACE, "pods", "-l", "k8s-app=kube-proxy"])?;
    let items = list["items"].as_array().context("not a list")?;
    let wanted = items.iter().filter(|pod| node.is_none_or(|node| pod["spec"]["nodeName"] == node));
    Ok(wanted.filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

/// The deleted DaemonSet, as it was remembered last.
fn make_again(cluster: &Cluster) -> Result<()> {
    let files = std::fs::read_dir(&cluster.run_dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let kept = files.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(REMEMBERED)));
    let newest = kept.max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    let text = std::fs::read_to_string(newest.context("kube-proxy is gone, and nobody remembers it")?)?;
    let mut set: Value = serde_json::from_str(&text)?;
    set["metadata"] = json!({"name": "kube-proxy", "namespace": NAMESPACE, "labels": set["metadata"]["labels"]});
    set["status"] = Value::Null;
    cluster.apply(&set.to_string())
}

/// The DaemonSet as it was before the first fault of all, kept in the cluster's run folder so that a
/// later run finds it as well; and as it is now.
fn remember(cluster: &Cluster) -> Result<(Value, Value)> {
    let now = cluster.get(&["-n", NAMESPACE, DAEMON_SET])?;
    let uid = now["metadata"]["uid"].as_str().context("without uid")?;
    let path = cluster.run_dir.join(format!("{REMEMBERED}{uid}.json"));
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok((serde_json::from_str(&text)?, now));
    }
    std::fs::write(&path, now.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((now.clone(), now))
}
