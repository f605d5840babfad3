//! Scenario 8: from the client's side, with a kubeconfig and no node, kube-proxy nowhere.

use anyhow::{Result, ensure};
use e2e::app::{Bookinfo, NAMESPACE};
use e2e::faults::{kube_proxy, route};
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
        stage.laptop.diagnose(&[], 1)?.leads(kube_proxy::nowhere(&stage.cluster))?;
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

#[test]
fn s08_a_probe_pod_sees_the_lost_route() {
    scenario("s08_a_probe_pod_sees_the_lost_route", |stage| {
        let (entry, there) = (stage.cluster.control_plane()?, stage.cluster.worker(0)?);
        Bookinfo::page().bare().on(&there.place.name).start(&stage.cluster)?;
        e2e::app::wait_ready(&stage.cluster, NAMESPACE)?;
        stage.page(PAGE)?;
        stage.inject(route::gone(entry, there))?;
        stage.no_page(&[Seen::NoRoute, Seen::Refused, Seen::Timeout])?;
        let told = stage.laptop.diagnose(&["--probe-pod"], 1)?;
        told.leads("BA5011")?;
        let evidence = told.findings().first().map(|f| f["evidence"].to_string()).unwrap_or_default();
        ensure!(evidence.contains("\"probePod\""), "no word of the probe pod: {evidence}");
        let own = ["get", "pods", "-A", "-l", "app.kubernetes.io/managed-by=kubectl-bookaccess", "-o", "name"];
        let left = stage.cluster.kubectl(&own)?;
        ensure!(left.is_empty(), "left behind: {left}");
        Ok(())
    });
}
