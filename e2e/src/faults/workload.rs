//! The page's pods: gone, replaced, killed, moved.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::app::{Bookinfo, CONTAINER, IMAGE_TAGGED, NAMESPACE, PORT, wait_ready};
use crate::cluster::{Cluster, Place};
use crate::condition::until;
use crate::faults::Fault;
use crate::page;

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

/// How long pods may take to be replaced, the end of the old ones included.
const REPLACED: Duration = Duration::from_secs(90);

/// Every pod is replaced by a new one, by rolling update.
pub fn rolled_out() -> Fault {
    Fault::new("the Deployment is rolled out anew", |cluster: &Cluster| roll(cluster, "restart"), |_: &Cluster| Ok(()))
}

/// `kubectl rollout HOW` of the page, until the old pods are gone: they go on answering for a while.
pub fn roll(cluster: &Cluster, how: &str) -> Result<()> {
    let old = names(cluster)?;
    cluster.kubectl(&["rollout", how, "-n", NAMESPACE, DEPLOYMENT])?;
    wait_ready(cluster, NAMESPACE)?;
    until_gone(cluster, &old)
}

/// The page moves to another node by rolling update, as somebody who edits its nodeSelector moves it.
pub fn moved_to(node: &str) -> Fault {
    moved(node, Bookinfo::page().on(node))
}

/// As [`moved_to`], without probes.
pub fn moved_bare_to(node: &str) -> Fault {
    moved(node, Bookinfo::page().bare().on(node))
}

fn moved(node: &str, page: Bookinfo) -> Fault {
    Fault::new(
        format!("the page moves to {node}"),
        move |cluster: &Cluster| {
            let old = names(cluster)?;
            page.apply(cluster)?;
            until_gone(cluster, &old)
        },
        |_: &Cluster| Ok(()),
    )
}

/// The process of one of the page's containers is killed by SIGKILL; the kubelet starts it again.
pub fn killed() -> Fault {
    Fault::new("a pod's process is killed", kill_one, |cluster: &Cluster| wait_ready(cluster, NAMESPACE))
}

/// One of the page's pods refuses connections, though it counts as ready: the one that serves this client now.
pub fn one_refuses() -> Fault {
    const TABLE: &str = "inet e2e_refuses";
    Fault::new(
        "one ready pod refuses connections",
        |cluster: &Cluster| {
            let url = format!("http://{}:{PORT}/productpage", cluster.public_address);
            let body = page::expect_page(&cluster.client, &url, Duration::from_secs(5))?;
            let served = body.split("Served by pod ").nth(1).and_then(|rest| rest.split('<').next());
            let served = served.context("the page does not say which pod served it")?;
            let pod = cluster.get(&["-n", NAMESPACE, "pod", served])?;
            let rules = "chain in { type filter hook input priority 0; tcp dport 9080 reject with tcp reset; };";
            inside(cluster, &pod, &format!("nft 'table {TABLE} {{ {rules} }}'"))
        },
        // It ends with the pod.
        |_: &Cluster| Ok(()),
    )
}

/// No pod is put on this node any more.
pub fn cordoned(node: &str) -> Fault {
    let (node, healed) = (node.to_owned(), node.to_owned());
    Fault::new(
        format!("{node} is cordoned"),
        move |cluster: &Cluster| cluster.kubectl(&["cordon", &node]).map(drop),
        move |cluster: &Cluster| cluster.kubectl(&["uncordon", &healed]).map(drop),
    )
}

/// The page's Deployment is edited into something that never gets ready, by rolling update: the old pods stay.
pub fn rolled_into(name: &str, operations: Value) -> Fault {
    Fault::new(
        name,
        move |cluster: &Cluster| cluster.json_patch(NAMESPACE, DEPLOYMENT, &operations),
        |_: &Cluster| Ok(()),
    )
}

/// The page's Deployment is made anew with a readiness probe that never passes.
pub fn never_ready() -> Fault {
    Fault::new(
        "no pod ever gets ready",
        |cluster: &Cluster| {
            // With its pods: one that ends serves until it has.
            cluster.kubectl(&["delete", "-n", NAMESPACE, DEPLOYMENT, "--cascade=foreground"])?;
            let path = format!("{CONTAINER}/readinessProbe/httpGet/path");
            let page = Bookinfo::page().edit(json!({"op": "add", "path": path, "value": "/nowhere"}));
            let all = page.manifest(cluster)?;
            // The Service stays as it was edited.
            let deployment = all.split("\n---\n").find(|object| object.contains("\nkind: Deployment\n"));
            cluster.apply(deployment.context("the manifest has no Deployment")?)
        },
        |_: &Cluster| Ok(()),
    )
}

/// Another application's pod on `node` is given an address that was a page pod's, as happens once a node has come round
/// through its range.
pub fn stranger_gets(address: Ipv4Addr, node: &str) -> Fault {
    let node = node.to_owned();
    Fault::new(
        format!("another application has {address}"),
        move |cluster: &Cluster| {
            let place = cluster.nodes.iter().map(|n| &n.place).find(|p| p.name == node).context("no such node")?;
            // The plugin host-local gives the address after the last one it gave.
            let before = Ipv4Addr::from_bits(address.to_bits() - 1);
            place.shell(&format!(
                "for last in /run/cni-ipam/*/last_reserved_ip.0; do printf %s {before} > $last; done"
            ))?;
            let env = json!([{"name": "ROLE", "value": "details"}]);
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "stranger", "namespace": NAMESPACE, "labels": {"app": "stranger"}},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "details", "image": IMAGE_TAGGED, "imagePullPolicy": "Never", "env": env}]},
            });
            cluster.apply(&pod.to_string())?;
            cluster.kubectl(&["wait", "-n", NAMESPACE, "pod/stranger", "--for=condition=Ready", "--timeout=30s"])?;
            let pod = cluster.get(&["-n", NAMESPACE, "pod/stranger"])?;
            ensure!(pod["status"]["podIP"] == address.to_string(), "it was given {}", pod["status"]["podIP"]);
            // The node goes on sending to the former holder for half a minute where it heard of that one within the last
            // second: it takes no other's word then (arp(7), locktime).
            place.shell(&format!("ip neighbour flush to {address}")).map(drop)
        },
        |_: &Cluster| Ok(()),
    )
}

/// The address of the page's only pod.
pub fn address(cluster: &Cluster) -> Result<Ipv4Addr> {
    let pod = staying(cluster)?.into_iter().next().context("the page has no pod")?;
    pod["status"]["podIP"].as_str().context("no address yet")?.parse().context("the pod's address")
}

/// The page's pods end without a word, as when their node loses power; nobody has to notice.
pub fn pods_gone() -> Fault {
    Fault::new(
        "the page's pods are gone",
        |cluster: &Cluster| {
            let select = ["-n", NAMESPACE, "-l", "app=productpage"];
            cluster.kubectl(&[&["delete", "pods", "--grace-period=0", "--force"], &select[..]].concat()).map(drop)
        },
        |_: &Cluster| Ok(()),
    )
}

/// Runs a command in a pod's network.
fn inside(cluster: &Cluster, pod: &Value, command: &str) -> Result<()> {
    let id = container(pod)?;
    let line = format!(
        "pid=$(ctr --namespace k8s.io tasks list | awk '$1 == \"{id}\" {{ print $2 }}'); test -n \"$pid\"; \
         nsenter --target $pid --net {command}"
    );
    node_of(cluster, pod)?.shell(&line).map(drop)
}

/// The id of a pod's first container, as containerd knows it.
fn container(pod: &Value) -> Result<String> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().context("no container")?;
    Ok(id.strip_prefix("containerd://").context("not containerd's")?.to_owned())
}

fn kill_one(cluster: &Cluster) -> Result<()> {
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(u64::MAX);
    // One that was killed before would be started again only after a pause.
    let pod = staying(cluster)?.into_iter().min_by_key(restarts).context("the page has no pod")?;
    let (name, before) = (pod["metadata"]["name"].as_str().context("no name")?, restarts(&pod));
    let id = container(&pod)?;
    let place = node_of(cluster, &pod)?;
    place.shell(&format!("ctr --namespace k8s.io tasks kill --signal SIGKILL {id}"))?;
    until("its container runs again", Duration::from_secs(60), || {
        let pod = cluster.get(&["-n", NAMESPACE, "pod", name])?;
        let ready = &pod["status"]["containerStatuses"][0]["ready"];
        ensure!(restarts(&pod) > before && *ready == true, "{}", pod["status"]["containerStatuses"]);
        Ok(())
    })
}

/// Where a pod runs.
fn node_of<'c>(cluster: &'c Cluster, pod: &Value) -> Result<&'c Place> {
    let name = pod["spec"]["nodeName"].as_str().context("not scheduled")?;
    let node = cluster.nodes.iter().find(|node| node.place.name == name);
    Ok(&node.with_context(|| format!("no node {name}"))?.place)
}

/// The page's pods that are not about to end.
pub fn staying(cluster: &Cluster) -> Result<Vec<Value>> {
    let pods = cluster.get(&["-n", NAMESPACE, "pods", "-l", "app=productpage"])?;
    let all = pods["items"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
}

/// All of the page's pods as kubectl names them, those about to end included.
fn names(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", "app=productpage", "-o", "name"])
}

fn until_gone(cluster: &Cluster, names: &str) -> Result<()> {
    until("the former pods are gone", REPLACED, || {
        let left = self::names(cluster)?;
        let old: Vec<_> = left.lines().filter(|name| names.lines().any(|old| old == *name)).collect();
        ensure!(old.is_empty(), "{old:?}");
        Ok(())
    })
}
