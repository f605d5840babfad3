//! Scenario 10: no TARGET given. Both default pages come back; a ClusterIP Grafana is let be.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{self, Bookinfo};
use e2e::condition::until;
use e2e::faults::kube_proxy;
use e2e::objects::Objects;
use e2e::page::{self, Seen};
use e2e::scenario::{Stage, scenario};

use crate::{PAGE, fix, undo};

fn grafana(stage: &Stage) -> Result<()> {
    until("Grafana's health from outside", PAGE, || {
        let seen = page::fetch(&stage.cluster.client, &stage.grafana_url(), Duration::from_secs(2))?;
        let healthy = matches!(&seen, Seen::Answer { status: 200, body } if body.contains("\"database\":\"ok\""));
        ensure!(healthy, "{}", seen.brief());
        Ok(())
    })
}

#[test]
fn s10_default_targets() {
    scenario("s10_default_targets", |stage| {
        stage.inject(kube_proxy::unscheduled())?;
        Bookinfo::page().apply(&stage.cluster)?;
        app::apply_grafana(&stage.cluster, false)?;
        stage.no_page(&[Seen::Refused])?;
        let before = Objects::read(&stage.cluster)?;
        fix(stage, &stage.operator, &[])?;
        grafana(stage)?;
        undo(stage, &stage.operator, &before)?;

        app::apply_grafana(&stage.cluster, true)?;
        let before = Objects::read(&stage.cluster)?;
        let ended = fix(stage, &stage.operator, &[])?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(said.contains("grafana"), "no note about Grafana: {said}");
        let seen = page::fetch(&stage.cluster.client, &stage.grafana_url(), Duration::from_secs(3))?;
        ensure!(seen == Seen::Refused, "a ClusterIP Grafana is led to: {}", seen.brief());
        undo(stage, &stage.operator, &before)
    });
}
