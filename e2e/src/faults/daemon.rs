//! A program of a node is away: the API server, a kubelet. It comes back with its own command line.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::app::NAMESPACE;
use crate::cluster::{Cluster, Node, Place};
use crate::condition::until;
use crate::faults::Fault;

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(20);
/// The controller manager takes a node for lost after 50 s without a word of it (--node-monitor-grace-period).
const LOST: Duration = Duration::from_secs(90);

/// The API server is killed and started again after [`AWAY`].
pub fn api_server_restarts(node: &Node) -> Fault {
    const PROGRAM: &str = "kube-apiserver";
    let (place, healed) = (node.place.clone(), node.place.clone());
    let back = |cluster: &Cluster, place: &Place| {
        start(place, PROGRAM)?;
        until("the API server is ready", Duration::from_secs(60), || {
            cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"]).map(drop)
        })
    };
    Fault::new(
        format!("the API server is away for {} s", AWAY.as_secs()),
        move |cluster| {
            stop(&place, PROGRAM)?;
            // The time away is the fault itself, not a wait for something.
            std::thread::sleep(AWAY);
            back(cluster, &place)
        },
        move |cluster| {
            back(cluster, &healed)?;
            controllers_act(cluster)
        },
    )
}

/// Waits until the controllers have found the API server again: they wait longer after each failure.
fn controllers_act(cluster: &Cluster) -> Result<()> {
    let labels = json!({"app": "controllers-act"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "controllers-act", "namespace": "default"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "none", "image": "none"}]}}},
    });
    cluster.apply(&deployment.to_string())?;
    let name = ["-n", "default", "deployment", "controllers-act"];
    let observed = until("the controllers act", Duration::from_secs(120), || {
        let status = cluster.get(&name)?["status"].clone();
        ensure!(status["observedGeneration"].is_u64(), "{status}");
        Ok(())
    });
    cluster.kubectl(&[&["delete"], &name[..]].concat())?;
    observed
}

/// A node's kubelet is gone. In effect when the node and its pods no longer count as ready, though they go on answering.
pub fn kubelet_gone(node: &Node) -> Fault {
    const PROGRAM: &str = "kubelet";
    let (node, healed) = (node.place.clone(), node.place.clone());
    Fault::new(
        format!("the kubelet of {} is gone", node.name),
        move |cluster| {
            stop(&node, PROGRAM)?;
            until("it and its pods are no longer ready", LOST, || {
                let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
                let state = cluster.kubectl(&["get", "node", &node.name, "-o", path])?;
                ensure!(state != "True", "the node is ready");
                let ready = ready_on(cluster, &node.name)?;
                ensure!(ready == 0, "{ready} endpoints of it are ready");
                Ok(())
            })
        },
        move |cluster| {
            start(&healed, PROGRAM)?;
            let node = format!("node/{}", healed.name);
            cluster.kubectl(&["wait", &node, "--for=condition=Ready", "--timeout=50s"])?;
            crate::app::wait_ready(cluster, NAMESPACE)
        },
    )
}

/// kube-controller-manager or kube-scheduler is gone: nobody acts on what is asked for. In effect when nobody can take it
/// for a change of leaders any more.
pub fn controller_gone(node: &Node, program: &'static str) -> Fault {
    let (place, healed) = (node.place.clone(), node.place.clone());
    Fault::new(
        format!("{program} is gone"),
        move |cluster| {
            stop(&place, program)?;
            let lease = ["-n", "kube-system", "get", "lease", program, "-o", "jsonpath={.spec.renewTime}"];
            let renewed = cluster.kubectl(&lease)?;
            // By the clock of the place, which is the cluster's; the fault has no other sign than that time passes.
            let silent = format!("test $(( $(date +%s) - $(date -d {renewed} +%s) )) -gt {SILENCE}");
            until("its Lease is old", LOST, || place.shell(&silent).map(drop))
        },
        move |cluster| {
            // The former holder does not come back for it, and the new one would wait until it ends.
            cluster.kubectl(&["-n", "kube-system", "delete", "lease", program, "--ignore-not-found"])?;
            start(&healed, program)?;
            controllers_act(cluster)
        },
    )
}

/// kube-proxy's process on a node is stopped by SIGSTOP: there, and deaf.
pub fn kube_proxy_wedged(node: &Node) -> Fault {
    let (place, healed) = (node.place.clone(), node.place.clone());
    Fault::new(
        format!("kube-proxy of {} is wedged", node.place.name),
        move |_: &Cluster| place.shell("kill -STOP $(pgrep -x kube-proxy)").map(drop),
        move |_: &Cluster| healed.shell("pgrep -x kube-proxy | xargs -r kill -CONT").map(drop),
    )
}

/// How many of the page's endpoints on a node are ready.
fn ready_on(cluster: &Cluster, node: &str) -> Result<usize> {
    let select = "kubernetes.io/service-name=productpage";
    let slices = cluster.get(&["-n", NAMESPACE, "endpointslices", "-l", select])?;
    let slices = slices["items"].as_array().context("not a list")?;
    let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    Ok(endpoints.filter(|each| each["nodeName"] == node && each["conditions"]["ready"] == true).count())
}

/// A process' name as the kernel keeps it: 15 characters (TASK_COMM_LEN).
fn comm(program: &str) -> &str {
    program.get(..15).unwrap_or(program)
}

/// Seconds without a word after which a Lease has neither its holder nor a successor.
const SILENCE: u32 = 40;

/// Kills a program of the place, remembering how it was started.
fn stop(place: &Place, program: &str) -> Result<()> {
    let comm = comm(program);
    let line = format!(
        "pid=$(pgrep -o -x {comm}); cp /proc/$pid/cmdline /run/{program}.cmdline; kill -KILL $pid; \
         while test -d /proc/$pid; do sleep 0.05; done"
    );
    place.shell(&line).map(drop).with_context(|| format!("does {program} run there?"))
}

/// Starts it again unless it runs.
fn start(place: &Place, program: &str) -> Result<()> {
    let comm = comm(program);
    let line = format!(
        "pgrep -x {comm} >/dev/null || xargs -0 -a /run/{program}.cmdline setsid --fork \
         >/var/log/{program}-again.log 2>&1 </dev/null"
    );
    place.shell(&line).map(drop)
}
