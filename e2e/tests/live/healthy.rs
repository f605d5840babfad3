//! Scenario 9: where nothing is wrong, nothing is done.

use std::time::Duration;

use anyhow::ensure;
use e2e::app::{self, Bookinfo, NAMESPACE};
use e2e::objects::{Objects, Versions};
use e2e::scenario::scenario;

use crate::PAGE;

#[test]
fn s09_healthy_cluster() {
    scenario("s09_healthy_cluster", |stage| {
        Bookinfo::page().on(&stage.cluster.worker(0)?.place.name).apply(&stage.cluster)?;
        stage.page(PAGE)?;
        let before = Versions::read(&stage.cluster, &[NAMESPACE])?;
        for by in [&stage.operator, &stage.laptop] {
            let codes = by.diagnose(&[], 0)?;
            ensure!(codes.findings().is_empty(), "{}: {:#}", by.place.name, codes.0["findings"]);
            by.must(&["fix", "--yes"], 0)?;
            by.must(&["status"], 0)?;
        }
        before.must_equal(&Versions::read(&stage.cluster, &[NAMESPACE])?)?;
        let tables = stage.cluster.control_plane()?.place.shell("nft list tables")?;
        ensure!(!tables.contains("bookaccess"), "a standby was started: {tables}");
        Ok(())
    });
}

#[test]
fn s09_rollout_in_progress() {
    scenario("s09_rollout_in_progress", |stage| {
        let slow = Bookinfo::page().slow_by(6000);
        slow.start(&stage.cluster)?;
        let before = Objects::read(&stage.cluster)?;
        let ended = stage.operator.must(&["fix", "--yes"], 0)?;
        ensure!(ended.took > Duration::from_secs(2), "it did not wait: {:?}", ended.took);
        stage.page(PAGE)?;
        app::wait_ready(&stage.cluster, NAMESPACE)?;
        before.must_equal(&Objects::read(&stage.cluster)?)
    });
}
