//! Scenario 6: the Service or the workload says something else than is meant.

use anyhow::Result;
use e2e::app::Bookinfo;
use e2e::faults::{Fault, service, workload};
use e2e::page::Seen;
use e2e::scenario::{Stage, scenario};

use crate::{PAGE, broken_fixed_undone};

/// The page works, the fault is injected, the usual course follows.
fn edited(stage: &Stage, bookinfo: &Bookinfo, fault: Fault, broken: Seen, code: &str) -> Result<()> {
    bookinfo.apply(&stage.cluster)?;
    stage.page(PAGE)?;
    stage.inject(fault)?;
    broken_fixed_undone(stage, &[broken], code)
}

#[test]
fn s06_selector_typo() {
    scenario("s06_selector_typo", |stage| {
        edited(stage, &Bookinfo::page(), service::selector_typo(), Seen::Refused, "BA1201")
    });
}

#[test]
fn s06_target_port_wrong() {
    scenario("s06_target_port_wrong", |stage| {
        edited(stage, &Bookinfo::page(), service::target_port_wrong(), Seen::Refused, "BA1101")
    });
}

#[test]
fn s06_no_replicas() {
    scenario("s06_no_replicas", |stage| {
        edited(stage, &Bookinfo::page(), workload::no_replicas(), Seen::Refused, "BA2001")
    });
}

#[test]
fn s06_traffic_policy_local_on_the_wrong_node() {
    scenario("s06_traffic_policy_local_on_the_wrong_node", |stage| {
        let page = Bookinfo::page().on(&stage.cluster.worker(0)?.place.name);
        edited(stage, &page, service::local_only(), Seen::Timeout, "BA1301")
    });
}

#[test]
fn s06_listener_on_loopback() {
    scenario("s06_listener_on_loopback", |stage| {
        Bookinfo::page().on_loopback().apply(&stage.cluster)?;
        broken_fixed_undone(stage, &[Seen::Refused], "BA2301")
    });
}
