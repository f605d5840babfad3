//! Scenario 8: from the client's side, with a kubeconfig and no node, kube-proxy nowhere.

use anyhow::{Result, ensure};
use e2e::app::{Bookinfo, NAMESPACE};
use e2e::faults::kube_proxy;
use e2e::objects::Objects;
use e2e::page::{self, Seen};
use e2e::scenario::{Stage, scenario};

use crate::{PAGE, fix, local_url, page_pod, undo};

/// kube-proxy gone before the Service exists, the page on a worker.
fn no_node_port(stage: &Stage) -> Result<()> {
    stage.inject(kube_proxy::unscheduled())?;
    Bookinfo::page().on(&stage.cluster.worker(0)?.place.name).apply(&stage.cluster)?;
    stage.no_page(&[Seen::Refused])
}

#[test]
fn s08_host_port_from_a_laptop() {
    scenario("s08_host_port_from_a_laptop", |stage| {
        no_node_port(stage)?;
        let before = Objects::read(&stage.cluster)?;
        stage.laptop.diagnose(&[], 1)?.leads("BA3002")?;
        fix(stage, &stage.laptop, &[])?;
        let pod = page_pod(stage)?;
        let spec = &pod["spec"];
        ensure!(spec["nodeName"] == stage.cluster.control_plane()?.place.name.as_str(), "{spec:#}");
        ensure!(spec["containers"][0]["ports"][0]["hostPort"] == e2e::app::PORT, "{spec:#}");
        undo(stage, &stage.laptop, &before)?;
        stage.no_page(&[Seen::Refused])
    });
}

#[test]
fn s08_kube_proxy_repaired_from_a_laptop() {
    scenario("s08_kube_proxy_repaired_from_a_laptop", |stage| {
        no_node_port(stage)?;
        let before = Objects::read(&stage.cluster)?;
        fix(stage, &stage.laptop, &["--allow", "system"])?;
        let pod = page_pod(stage)?;
        let port = &pod["spec"]["containers"][0]["ports"][0];
        ensure!(port["hostPort"].is_null(), "repaired, and yet a hostPort: {port}");
        undo(stage, &stage.laptop, &before)
    });
}

#[test]
fn s08_pod_security_leaves_a_local_forward() {
    scenario("s08_pod_security_leaves_a_local_forward", |stage| {
        no_node_port(stage)?;
        let level = "pod-security.kubernetes.io/enforce=baseline";
        stage.cluster.kubectl(&["label", "namespace", NAMESPACE, level])?;
        let before = Objects::read(&stage.cluster)?;
        let ended = stage.laptop.must(&["fix", "--yes"], 6)?;
        page::expect_page(&stage.cluster.client, &local_url(&ended)?, PAGE)?;
        stage.no_page(&[Seen::Refused])?;
        undo(stage, &stage.laptop, &before)
    });
}
