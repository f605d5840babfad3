//! The live suite: every scenario on a real cluster, seen from an outside client.
//!
//! Run by `cargo xtask e2e`, which names the cluster, the binary and itself in the environment. The
//! scenarios share one cluster, so they run one after another.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod defaults;
mod forward_recovery;
mod forward_rules;
mod healthy;
mod kube_proxy;
mod laptop;
mod manifests;
mod next_day;
mod path;
mod rights;
mod security_group;
mod story;

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cluster::Ended;
use e2e::objects::Objects;
use e2e::page::Seen;
use e2e::plugin::Plugin;
use e2e::scenario::Stage;

/// How soon the page must be there once `fix` has said so.
const PAGE: Duration = Duration::from_secs(3);

/// `fix --yes` with these flags ends with 0, and the page is there.
fn fix(stage: &Stage, by: &Plugin, flags: &[&str]) -> Result<Ended> {
    let ended = by.must(&[&["fix", "--yes"], flags].concat(), 0)?;
    stage.page(PAGE).with_context(|| format!("after fix\n{}\n{}", ended.stdout, ended.stderr))?;
    Ok(ended)
}

/// The page stays without any fallback of ours: the NodePort itself works.
fn node_port_works(stage: &Stage, by: &Plugin) -> Result<String> {
    by.must(&["forward", "stop"], 0)?;
    stage.page(PAGE).context("with the fallback stopped")
}

/// `fix --undo --yes` ends with 0, and every object is as it was.
fn undo(stage: &Stage, by: &Plugin, before: &Objects) -> Result<()> {
    by.must(&["fix", "--undo", "--yes"], 0)?;
    before.must_equal(&Objects::read(&stage.cluster)?)
}

/// The usual course: broken as expected, its cause leads, `fix` brings the page, `--undo` takes it
/// away again.
fn broken_fixed_undone(stage: &Stage, broken: &[Seen], code: &str) -> Result<()> {
    stage.no_page(broken)?;
    let before = Objects::read(&stage.cluster)?;
    stage.operator.diagnose(&[], 1)?.leads(code)?;
    fix(stage, &stage.operator, &[])?;
    undo(stage, &stage.operator, &before)?;
    stage.no_page(broken).context("after --undo")
}

/// The page's pod that is to stay.
fn page_pod(stage: &Stage) -> Result<serde_json::Value> {
    let pods = stage.cluster.get(&["-n", e2e::app::NAMESPACE, "pods", "-l", "app=productpage"])?;
    let all = pods["items"].as_array().cloned().unwrap_or_default();
    let staying = all.into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    staying.context("the page has no pod")
}

/// The URL on the client's own machine that `fix` printed.
fn local_url(ended: &Ended) -> Result<String> {
    let urls = ended.stdout.split_whitespace().filter(|word| word.starts_with("http://"));
    let local = urls.into_iter().find(|url| url.contains("//127.0.0.1:") || url.contains("//localhost:"));
    let local = local.with_context(|| format!("no local URL in\n{}", ended.stdout))?;
    Ok(local.trim_end_matches(['.', ',', ')']).to_owned())
}
