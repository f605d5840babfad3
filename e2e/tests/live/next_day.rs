//! Scenario 11: the next day. The cluster is made anew under the same name; the client outlives it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::Bookinfo;
use e2e::condition::until;
use e2e::faults::kube_proxy;
use e2e::objects::Objects;
use e2e::page::Seen;
use e2e::scenario::{Stage, scenario};

use crate::{fix, undo};

/// The environment variable that names the xtask program.
const XTASK: &str = "BOOKACCESS_XTASK";

fn xtask(args: &[&str]) -> Result<()> {
    let program = std::env::var(XTASK).with_context(|| format!("{XTASK} is not set"))?;
    let output = Command::new(program).args(args).output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn broken_page(stage: &Stage) -> Result<()> {
    stage.inject(kube_proxy::unscheduled())?;
    Bookinfo::page().apply(&stage.cluster)?;
    stage.no_page(&[Seen::Refused])
}

#[test]
fn s11_the_next_day() {
    scenario("s11_the_next_day", |stage| {
        broken_page(stage)?;
        // Its journal stays on the client.
        fix(stage, &stage.laptop, &[])?;
        let forward = ["forward", "start", "svc/productpage", "31080:9080", "-n", "bookinfo"];
        stage.laptop.must(&forward, 0)?;

        let cluster = stage.cluster.clone();
        let workers = (cluster.nodes.len() - 1).to_string();
        xtask(&["cluster", "down", "--keep-client", "--name", &cluster.name])?;
        let same = ["--proxy-mode", &cluster.proxy_mode, "--kubernetes-version", &cluster.kubernetes_version];
        let up = ["cluster", "up", "--name", &cluster.name, "--provider", &cluster.provider, "--workers", &workers];
        xtask(&[&up[..], &same[..]].concat())?;
        stage.reopen()?;

        kube_proxy::wait_rolled_out(&stage.cluster)?;
        broken_page(stage)?;
        until("yesterday's forward says that its cluster is gone", Duration::from_secs(30), || {
            let ended = stage.laptop.run(&["forward", "status", "-o", "json"])?;
            ensure!(ended.stdout.contains("31080"), "it is not shown: {}", ended.stdout);
            ensure!(ended.stdout.contains("clusterGone"), "{}", ended.stdout);
            Ok(())
        })?;
        let before = Objects::read(&stage.cluster)?;
        fix(stage, &stage.laptop, &[])?;
        let list = stage.laptop.must(&["fix", "--list", "-o", "json"], 0)?;
        ensure!(list.stdout.contains("otherCluster"), "yesterday's fix is not told apart: {}", list.stdout);
        undo(stage, &stage.laptop, &before)?;
        stage.no_page(&[Seen::Refused])
    });
}
