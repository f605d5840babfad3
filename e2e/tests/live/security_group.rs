//! Scenario 7: the node answers, but packets to the public address are dropped on the way.

use anyhow::ensure;
use e2e::app::Bookinfo;
use e2e::faults::security_group;
use e2e::objects::{Objects, Versions};
use e2e::page::{self, Seen};
use e2e::scenario::scenario;

use crate::{PAGE, local_url};

#[test]
fn s07_security_group_drops_the_port() {
    scenario("s07_security_group_drops_the_port", |stage| {
        let cluster = &stage.cluster;
        Bookinfo::page().apply(cluster)?;
        stage.page(PAGE)?;
        stage.inject(security_group::drops(e2e::app::PORT))?;
        stage.no_page(&[Seen::Timeout])?;
        let (before, versions) = (Objects::read(cluster)?, Versions::read(cluster, &[e2e::app::NAMESPACE])?);

        let ended = stage.operator.must(&["fix", "--yes"], 0)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(said.contains("이 노드에서는 응답합니다") && said.contains("보안 그룹"), "{said}");
        ensure!(said.contains("30080/tcp"), "{said}");
        versions.must_equal(&Versions::read(cluster, &[e2e::app::NAMESPACE])?)?;

        let diagnosis = stage.laptop.diagnose(&[], 1)?;
        ensure!(diagnosis.leads("BA6001")?.findings()[0]["confidence"] == "likely", "{:#}", diagnosis.0);
        stage.laptop.must(&["fix", "--yes", "--no-fallback"], 1)?;
        before.must_equal(&Objects::read(cluster)?)?;
        let ended = stage.laptop.must(&["fix", "--yes"], 6)?;
        page::expect_page(&cluster.client, &local_url(&ended)?, PAGE)?;
        before.must_equal(&Objects::read(cluster)?)
    });
}
