//! What is asked wrongly, or cannot be done, is said in a sentence and changes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::app::{Bookinfo, NAMESPACE};
use e2e::cluster::Ended;
use e2e::faults::workload;
use e2e::objects::{Objects, Versions};
use e2e::page::Seen;
use e2e::plugin::Plugin;
use e2e::scenario::scenario;
use serde_json::json;

use crate::{PAGE, fix};

/// Ends with the code, and says each of the words on standard error.
fn refused(by: &Plugin, args: &[&str], code: i32, words: &[&str]) -> Result<Ended> {
    let ended = by.must(args, code)?;
    for word in words {
        ensure!(ended.stderr.contains(word), "{args:?}: no {word:?} in\n{}{}", ended.stdout, ended.stderr);
    }
    for trace in ["panicked", "RUST_BACKTRACE"] {
        ensure!(!ended.stderr.contains(trace), "{args:?}: {}", ended.stderr);
    }
    Ok(ended)
}

#[test]
fn s13_bad_input() {
    scenario("s13_bad_input", |stage| {
        Bookinfo::page().apply(&stage.cluster)?;
        if stage.cluster.has_kube_proxy() {
            stage.page(PAGE)?;
        }
        let before = Versions::read(&stage.cluster, &[NAMESPACE])?;
        let laptop = &stage.laptop;
        refused(laptop, &["diagnose", "svc/productpag", "-n", NAMESPACE], 2, &["productpag", "productpage"])?;
        refused(laptop, &["diagnose", "productpage", "-n", "bookinf"], 2, &["bookinf", "bookinfo"])?;
        refused(laptop, &["diagnose", "--no-such-flag"], 2, &["--no-such-flag"])?;
        refused(laptop, &["diagnos"], 2, &["diagnose"])?;
        refused(laptop, &["fix", "--allow", "sistem"], 2, &["system"])?;
        refused(laptop, &["explain", "BA9999"], 2, &["BA9999"])?;
        let nowhere = ["diagnose", "--kubeconfig", "/nonexistent/config"];
        refused(laptop, &nowhere, 2, &["/nonexistent/config"])?;
        let dead = refused(laptop, &["diagnose", "-s", "https://192.0.2.1:6443"], 4, &["192.0.2.1"])?;
        ensure!(dead.took < Duration::from_secs(6), "it took {:?}", dead.took);
        refused(laptop, &["diagnose", "-s", "https://127.0.0.1:1"], 4, &["127.0.0.1:1"])?;
        let stranger = refused(laptop, &["diagnose", "--token", "expired-yesterday"], 3, &[])?;
        ensure!(!format!("{}{}", stranger.stdout, stranger.stderr).contains("expired-yesterday"), "the token is shown");
        before.must_equal(&Versions::read(&stage.cluster, &[NAMESPACE])?)
    });
}

#[test]
fn s13_consent_is_asked_for() {
    scenario("s13_consent_is_asked_for", |stage| {
        Bookinfo { cluster_ip: true, ..Bookinfo::page() }.apply(&stage.cluster)?;
        let before = Versions::read(&stage.cluster, &[NAMESPACE])?;
        refused(&stage.operator, &["fix"], 5, &["--yes"])?;
        let plan = stage.operator.must(&["fix", "--dry-run"], 0)?;
        ensure!(plan.stdout.contains("NodePort"), "{}", plan.stdout);
        before.must_equal(&Versions::read(&stage.cluster, &[NAMESPACE])?)
    });
}

#[test]
fn s13_undo_respects_what_others_changed_since() {
    scenario("s13_undo_respects_what_others_changed_since", |stage| {
        Bookinfo { cluster_ip: true, ..Bookinfo::page() }.apply(&stage.cluster)?;
        stage.no_page(&[Seen::Refused])?;
        fix(stage, &stage.operator, &[])?;
        let other = json!([{"op": "replace", "path": "/spec/ports/0/nodePort", "value": 30081}]);
        stage.cluster.json_patch(NAMESPACE, "service/productpage", &other)?;
        let before = Objects::read(&stage.cluster)?;
        let ended = stage.operator.must(&["fix", "--undo", "--yes"], 1)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(said.contains("productpage") && said.contains("30081"), "{said}");
        before.must_equal(&Objects::read(&stage.cluster)?)
    });
}

#[test]
fn s13_a_second_fix_changes_nothing() {
    scenario("s13_a_second_fix_changes_nothing", |stage| {
        Bookinfo { cluster_ip: true, ..Bookinfo::page() }.apply(&stage.cluster)?;
        fix(stage, &stage.operator, &[])?;
        let before = Objects::read(&stage.cluster)?;
        fix(stage, &stage.operator, &[])?;
        before.must_equal(&Objects::read(&stage.cluster)?)?;
        let list = stage.laptop.must(&["fix", "--list"], 0)?;
        ensure!(list.stdout.contains("productpage"), "a fix made elsewhere is not listed: {}", list.stdout);
        Ok(())
    });
}

#[test]
fn s13_a_port_in_use_is_named_with_its_holder() {
    scenario("s13_a_port_in_use_is_named_with_its_holder", |stage| {
        Bookinfo::page().apply(&stage.cluster)?;
        // kubelet's healthz port is held on every node, by a process with a name.
        let busy = ["forward", "svc/productpage", "10248:http", "-n", NAMESPACE];
        refused(&stage.operator, &busy, 1, &["10248", "kubelet"]).map(drop)
    });
}

#[test]
fn s13_without_a_place_for_the_journal_nothing_is_changed() {
    scenario("s13_without_a_place_for_the_journal_nothing_is_changed", |stage| {
        Bookinfo { cluster_ip: true, ..Bookinfo::page() }.apply(&stage.cluster)?;
        let before = Versions::read(&stage.cluster, &[NAMESPACE])?;
        // Not even root makes a folder there.
        let nowhere = stage.operator.clone().with("BOOKACCESS_STATE_DIR", "/proc/nowhere");
        refused(&nowhere, &["fix", "--yes", "--no-fallback"], 2, &["/proc/nowhere"])?;
        before.must_equal(&Versions::read(&stage.cluster, &[NAMESPACE])?)
    });
}

#[test]
fn s13_an_interrupted_fix_takes_its_step_back() {
    scenario("s13_an_interrupted_fix_takes_its_step_back", |stage| {
        // The page takes longer to start than the person waits, so that the step is under way.
        Bookinfo::page().slow_by(40_000).start(&stage.cluster)?;
        stage.inject(workload::no_replicas())?;
        let before = Objects::read(&stage.cluster)?;
        let line = "timeout --preserve-status --signal=INT 6 kubectl bookaccess fix --yes --no-fallback --no-standby";
        let ended = stage.operator.shell(line)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(ended.code == Some(130), "exit code {:?}: {said}", ended.code);
        ensure!(said.contains("[1/1]"), "no step was under way: {said}");
        before.must_equal(&Objects::read(&stage.cluster)?)?;
        // Nothing is left to undo, and the journal is whole.
        stage.operator.must(&["fix", "--undo", "--yes"], 0)?;
        before.must_equal(&Objects::read(&stage.cluster)?)
    });
}
