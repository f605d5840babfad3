//! Scenarios 2 to 4: kube-proxy runs nowhere, not on the dialled node, or over flushed rules.

use anyhow::{Context, ensure};
use e2e::app::Bookinfo;
use e2e::cluster::Cluster;
use e2e::condition::until;
use e2e::faults::{kube_proxy, rules};
use e2e::objects::Objects;
use e2e::page::{self, Seen};
use e2e::scenario::scenario;
use std::time::Duration;

use crate::{PAGE, broken_fixed_undone, fix, node_port_works, undo};

#[test]
fn s02_kube_proxy_scheduled_nowhere() {
    scenario("s02_kube_proxy_scheduled_nowhere", |stage| {
        stage.inject(kube_proxy::unscheduled())?;
        let worker = &stage.cluster.worker(0)?.place.name;
        Bookinfo::page().on(worker).with_parts().apply(&stage.cluster)?;
        broken_fixed_undone(stage, &[Seen::Refused], "BA3002")?;

        let before = Objects::read(&stage.cluster)?;
        fix(stage, &stage.operator, &["--allow", "system"])?;
        node_port_works(stage, &stage.operator)?;
        let parts = Duration::from_secs(10);
        until("details and reviews on the page", parts, || {
            let page = page::expect_page(&stage.cluster.client, &stage.url(), PAGE)?;
            ensure!(page.contains("Book Details") && page.contains("Reviews served by"), "{page}");
            Ok(())
        })?;
        undo(stage, &stage.operator, &before)
    });
}

#[test]
fn s03_kube_proxy_excluded_then_the_page_moves() {
    scenario("s03_kube_proxy_excluded_then_the_page_moves", |stage| {
        let cluster = &stage.cluster;
        let (here, there) = (&cluster.worker(0)?.place.name, &cluster.worker(1)?.place.name);
        Bookinfo::page().on(here).apply(cluster)?;
        stage.page(PAGE)?;
        stage.inject(kube_proxy::excluded_from(&cluster.control_plane()?.place.name))?;

        stage.page(PAGE).context("by the rules that stay")?;
        let diagnosis = stage.operator.diagnose(&[], 0)?;
        ensure!(diagnosis.finding("BA3002")?["severity"] == "warning", "{:#}", diagnosis.0);

        Bookinfo::page().on(there).apply(cluster)?;
        pods_are_one(cluster)?;
        broken_fixed_undone(stage, &[Seen::NoRoute, Seen::Timeout], "BA3019")
    });
}

#[test]
fn s04_rules_flushed_under_a_live_kube_proxy() {
    scenario("s04_rules_flushed_under_a_live_kube_proxy", |stage| {
        Bookinfo::page().apply(&stage.cluster)?;
        stage.page(PAGE)?;
        stage.inject(rules::flushed_on(&stage.cluster.control_plane()?.place.name))?;
        stage.no_page(&[Seen::Refused])?;
        let before = Objects::read(&stage.cluster)?;
        // What is only seconds old may still be on its way to the rules, and is not judged yet.
        until("the cause is named", Duration::from_secs(20), || {
            stage.operator.diagnose(&[], 1)?.leads("BA3020").map(drop)
        })?;
        fix(stage, &stage.operator, &[])?;
        if stage.cluster.proxy_mode == "nftables" {
            // There nothing gentle wakes it.
            fix(stage, &stage.operator, &["--allow", "system"])?;
        }
        node_port_works(stage, &stage.operator)?;
        undo(stage, &stage.operator, &before)
    });
}

/// The pod of before the move is gone, so that its address answers nobody.
fn pods_are_one(cluster: &Cluster) -> anyhow::Result<()> {
    until("one page pod", Duration::from_secs(20), || {
        let pods = cluster.get(&["-n", e2e::app::NAMESPACE, "pods", "-l", "app=productpage"])?;
        ensure!(pods["items"].as_array().is_some_and(|items| items.len() == 1), "still more than one");
        Ok(())
    })
}
