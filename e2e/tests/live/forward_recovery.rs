//! Each carrier through a rollout, a killed pod and a graceful restart, under new connections all the time; and what a
//! killed or wedged process of ours leaves behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::Bookinfo;
use e2e::condition::until;
use e2e::faults::recovery::{LEASE, Layout, Scene, Trial};
use e2e::faults::{ours, rules};
use e2e::page::{self, Seen};
use e2e::plugin::put;
use e2e::scenario::{Stage, scenario};
use e2e::way::{Open, Way};

use crate::PAGE;

/// New connections a second: a development build on a busy machine serves them without queueing.
const RATE: u32 = 50;

/// This workspace's xtask, which holds the load, as the client sees it.
fn load(stage: &Stage) -> Result<PathBuf> {
    let program = std::env::var_os("BOOKACCESS_XTASK").context("BOOKACCESS_XTASK is not set")?;
    put(&stage.cluster.client, Path::new(&program), "xtask")
}

/// Plays these faults on a way; what they may cost is not exceeded.
fn survives(stage: &Stage, way: Way, faults: &[&str]) -> Result<()> {
    let program = load(stage)?;
    let scene = Scene { cluster: &stage.cluster, operator: &stage.operator, program: &program, rate: RATE };
    for name in faults {
        let trial = Trial::of_name(name).with_context(|| format!("no fault {name}"))?;
        let count = trial.play(&scene, way)?;
        let target = (trial.target)(way).context("no target")?;
        ensure!(
            target.met(&count),
            "{name} by way of {}: wanted {target}; {count}\n{}\n{}",
            way.name(),
            count.failures_in_words(),
            count.log
        );
    }
    Ok(())
}

#[test]
fn f01_kernel_survives_what_happens_to_pods_and_to_itself() {
    scenario("f01_kernel", |stage| survives(stage, Way::Kernel, &["rollout", "pod-killed", "restarted"]));
}

#[test]
fn f02_direct_survives_what_happens_to_pods_and_to_itself() {
    scenario("f02_direct", |stage| survives(stage, Way::Direct, &["rollout", "pod-killed", "restarted"]));
}

#[test]
fn f03_tunnel_survives_what_happens_to_pods_and_to_itself() {
    scenario("f03_tunnel", |stage| survives(stage, Way::Tunnel, &["rollout", "pod-killed", "restarted"]));
}

#[test]
fn f04_a_listener_answers_when_the_rules_above_it_are_flushed() {
    scenario("f04_listener", |stage| survives(stage, Way::Standby, &["rules-flushed"]));
}

/// The kernel would go on leading packets to the pods without us, if our rules outlived us.
#[test]
fn f05_no_rule_of_ours_outlives_us() {
    scenario("f05_no_rule_of_ours_outlives_us", |stage| {
        Layout::Single.apply(&stage.cluster)?;
        stage.page(PAGE)?;
        stage.inject(rules::flushed_for_good_on(&stage.cluster.control_plane()?.place.name))?;
        stage.no_page(&[Seen::Refused])?;

        let open = begin(stage)?;
        open.end()?;
        no_table(stage).context("after stop")?;
        stage.no_page(&[Seen::Refused])?;

        for fault in [ours::killed, ours::wedged] {
            let open = Arc::new(begin(stage)?);
            let fault = fault(&open);
            (fault.inject)(&stage.cluster)?;
            // Not a wait for a condition: after this time no rule may act.
            std::thread::sleep(Duration::from_millis(LEASE));
            let seen = page::fetch(&stage.cluster.client, &stage.url(), Duration::from_secs(2))?;
            (fault.heal)(&stage.cluster)?;
            ensure!(!seen.is_page(), "{}, and {LEASE} ms later its rules still lead to the page", fault.name);
            drop(fault);
            if let Some(open) = Arc::into_inner(open) {
                open.end()?;
            }
        }
        let open = begin(stage).context("what a killed one left is in the way")?;
        open.end()?;
        no_table(stage)
    });
}

fn begin(stage: &Stage) -> Result<Open> {
    Open::begin(&stage.cluster, &stage.operator, Way::Kernel)
}

fn no_table(stage: &Stage) -> Result<()> {
    let tables = stage.operator.place.shell("nft list tables")?;
    ensure!(!tables.contains("bookaccess"), "{tables}");
    Ok(())
}

/// A live kube-proxy REJECTs the port of a Service without endpoints: with ours in front the connection waits instead.
#[test]
fn f06_connections_wait_while_there_is_no_pod() {
    scenario("f06_connections_wait_while_there_is_no_pod", |stage| {
        Bookinfo::page().apply(&stage.cluster)?;
        stage.page(PAGE)?;
        let open = begin(stage)?;
        let gone = e2e::faults::workload::no_replicas();
        (gone.inject)(&stage.cluster)?;
        let before = open.status()?["parked"].as_u64().context("nothing counts what is parked")?;
        let seen = std::thread::scope(|scope| {
            let patient = scope.spawn(|| page::fetch(&stage.cluster.client, &stage.url(), Duration::from_secs(25)));
            let parked = until("the connection is parked", Duration::from_secs(5), || {
                let now = open.status()?;
                ensure!(now["parked"].as_u64() > Some(before), "{now:#}");
                Ok(())
            });
            // Brought back also where nothing is parked: the request must end.
            let healed = (gone.heal)(&stage.cluster);
            let seen = patient.join().map_err(|_| anyhow::anyhow!("the request panicked"))?;
            parked.and(healed).and(seen)
        })?;
        ensure!(seen.is_page(), "{}", seen.brief());
        open.end()
    });
}
