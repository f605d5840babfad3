//! `cargo xtask bench recovery`: what each fault costs those who load the page meanwhile, on every way to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use e2e::cluster::Cluster;
use e2e::faults::recovery::{PATIENCE, RATE, Scene, TRIALS, Trial};
use e2e::load::Count;
use e2e::plugin::{Plugin, put};
use e2e::way::Way;
use serde_json::{Value, json};

use super::forward::release;
use super::{machine, record};
use crate::provider::native;
use crate::provider::native::plan::{Places, ProxyMode};
use crate::{cluster, e2e as live, readme, run};

/// Name of its own cluster.
const NAME: &str = "recovery";

#[derive(clap::Args)]
pub struct Args {
    /// A running cluster; without it one is made and taken down again
    #[arg(long)]
    cluster: Option<String>,
    /// The kube-proxy mode of the cluster that is made
    #[arg(long, value_enum, default_value_t)]
    proxy_mode: ProxyMode,
    /// Only these faults, by name, comma separated
    #[arg(long, value_delimiter = ',', value_parser = trial)]
    faults: Vec<&'static Trial>,
    /// Only these ways, by name, comma separated
    #[arg(long, value_delimiter = ',', value_parser = way)]
    ways: Vec<Way>,
    /// The program under test; without it a release build is made
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Also write the result as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table into docs/performance.md, with the values beside it
    #[arg(long)]
    record: bool,
}

fn trial(name: &str) -> Result<&'static Trial, String> {
    let names = || TRIALS.iter().map(|trial| trial.name).collect::<Vec<_>>().join(", ");
    Trial::of_name(name).ok_or_else(|| format!("there are {}", names()))
}

fn way(name: &str) -> Result<Way, String> {
    let names = || Way::ALL.map(Way::name).join(", ");
    Way::of_name(name).ok_or_else(|| format!("there are {}", names()))
}

/// What was counted, or why it could not be, by fault and way.
type Results = BTreeMap<(usize, Way), Result<Count, String>>;

/// Plays what is asked for. Fails where a target is missed.
pub fn run(args: &Args) -> Result<ExitCode> {
    native::require_machine()?;
    run::catch_interrupts()?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => release()?,
    };
    let name = args.cluster.as_deref().unwrap_or(NAME);
    if args.cluster.is_none() {
        cluster::up(&cluster::UpArgs { proxy_mode: args.proxy_mode, ..live::up_args(NAME) })?;
    }
    let start = Instant::now();
    let played = play(args, name, &binary);
    // What went wrong in the play comes first.
    let ended = if args.cluster.is_none() { live::end(NAME) } else { Ok(()) };
    let (about, results) = played?;
    ended?;
    let markdown = markdown(&about, &results);
    println!("{markdown}\nAll of it: {:.0} s", start.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", as_json(&about, &results));
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.record {
        record::section("recovery", &markdown)?;
        record::beside("recovery.json", &format!("{:#}", as_json(&about, &results)))?;
    }
    let missed = missed(&results);
    for line in &missed {
        println!("✘ {line}");
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the table's reader must know of the cluster and the machine.
fn about(cluster: &Cluster, binary: &Path) -> Result<String> {
    let machine = machine::describe(binary)?;
    let told = ["CPU", "memory", "kernel", "system", "nft", "kubectl bookaccess", "commit"];
    let told = told.iter().filter_map(|name| Some(format!("{name}: {}", machine.get(*name)?)));
    let (version, mode) = (&cluster.kubernetes_version, &cluster.proxy_mode);
    Ok(format!("Kubernetes: {version}; kube-proxy: {mode}; {}", told.collect::<Vec<_>>().join("; ")))
}

fn play(args: &Args, name: &str, binary: &Path) -> Result<(String, Results)> {
    let descriptor = Places::new(name).descriptor();
    let cluster = Cluster::load(descriptor.to_str().context("a path that is not UTF-8")?)?;
    let operator = Plugin::operator(&cluster, binary)?;
    let program = put(&cluster.client, &std::env::current_exe()?, "xtask")?;
    let scene = Scene { cluster: &cluster, operator: &operator, program: &program, rate: RATE };
    let mut results = Results::new();
    for (at, trial) in TRIALS.iter().enumerate() {
        if !args.faults.is_empty() && !args.faults.iter().any(|asked| asked.name == trial.name) {
            continue;
        }
        for way in Way::ALL {
            if !args.ways.is_empty() && !args.ways.contains(&way) || trial.ours && !way.is_ours() {
                continue;
            }
            run::check()?;
            let start = Instant::now();
            let counted = trial.play(&scene, way);
            run::check()?;
            let counted = counted.map_err(|error| format!("{error:#}"));
            let words = match &counted {
                Ok(count) => format!("{count}\n{}", count.failures_in_words()),
                Err(error) => format!("not played: {error}"),
            };
            let words = format!("{}, {}: {}", trial.name, way.name(), words.trim_end());
            println!("{}", readme::step_line(start.elapsed(), &words));
            results.insert((at, way), counted);
        }
    }
    Ok((about(&cluster, binary)?, results))
}

/// Every target of ours that was missed, in words.
fn missed(results: &Results) -> Vec<String> {
    let lines = results.iter().filter_map(|((at, way), counted)| {
        let trial = &TRIALS[*at];
        let target = way.is_ours().then(|| (trial.target)(*way)).flatten();
        match (counted, target) {
            (Err(error), _) => Some(format!("{}, {}: not played: {error}", trial.name, way.name())),
            (Ok(count), Some(target)) if !target.met(count) => {
                Some(format!("{}, {}: wanted {target}; {count}", trial.name, way.name()))
            }
            _ => None,
        }
    });
    lines.collect()
}

/// A line a fault, a column a way; what was missed is set bold.
fn markdown(about: &str, results: &Results) -> String {
    let mut ways: Vec<Way> = results.keys().map(|(_, way)| *way).collect();
    ways.sort_unstable();
    ways.dedup();
    let mut text = format!(
        "An outside client opens {RATE} new connections a second, however long each takes, and waits {} s for an answer. \
         Each cell: failed requests / longest time without any answer. Bold: the target is missed. –: the target says nothing of it, or it \
         does not apply. {about}.\n\n| fault | target |",
        PATIENCE.as_secs()
    );
    for way in &ways {
        let _ = write!(text, " {} |", title(*way));
    }
    text.push_str("\n|---|---|");
    ways.iter().for_each(|_| text.push_str("---|"));
    for (at, trial) in TRIALS.iter().enumerate().filter(|(at, _)| results.keys().any(|(played, _)| played == at)) {
        let target = (trial.target)(Way::Direct).map_or_else(|| "–".to_owned(), |target| target.to_string());
        let _ = write!(text, "\n| {} | {target} |", trial.words);
        for way in &ways {
            let cell = match results.get(&(at, *way)) {
                None => "–".to_owned(),
                Some(Err(_)) => "**not played**".to_owned(),
                Some(Ok(count)) => {
                    let cell = format!("{} / {} ms", count.failed, count.gap);
                    let target = way.is_ours().then(|| (trial.target)(*way)).flatten();
                    if target.is_some_and(|target| !target.met(count)) { format!("**{cell}**") } else { cell }
                }
            };
            let _ = write!(text, " {cell} |");
        }
    }
    text.push('\n');
    text
}

fn title(way: Way) -> &'static str {
    match way {
        Way::NodePort => "NodePort",
        Way::Kubectl => "kubectl port-forward",
        Way::Kernel => "ours, kernel",
        Way::Direct => "ours, direct",
        Way::Tunnel => "ours, tunnel",
        Way::Standby => "ours, listener below the NodePort",
    }
}

fn as_json(about: &str, results: &Results) -> Value {
    let cells = results.iter().map(|((at, way), counted)| {
        let trial = &TRIALS[*at];
        let target = way.is_ours().then(|| (trial.target)(*way)).flatten();
        let met = counted.as_ref().ok().zip(target).map(|(count, target)| target.met(count));
        json!({
            "fault": trial.name, "way": way.name(), "target": target.map(|target| target.to_string()), "met": met,
            "count": counted.as_ref().ok(), "error": counted.as_ref().err(),
        })
    });
    json!({ "about": about, "rate": RATE, "patienceMs": PATIENCE.as_millis() as u64, "cells": cells.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn results() -> Results {
        let at = |name| TRIALS.iter().position(|trial| trial.name == name).unwrap();
        let count = |failed, gap| Ok(Count { answered: 100, failed, gap, ..Count::default() });
        [
            ((at("rollout"), Way::NodePort), count(3, 40)),
            ((at("rollout"), Way::Direct), count(0, 12)),
            ((at("rules-flushed"), Way::NodePort), count(900, 7_000)),
            ((at("rules-flushed"), Way::Direct), count(1, 30)),
            ((at("wedged"), Way::Direct), Err("no".to_owned())),
        ]
        .into()
    }

    #[test]
    fn the_table_sets_what_is_missed_bold_and_only_ours_has_targets() {
        let text = markdown("here", &results());
        assert!(text.contains("| fault | target | NodePort | ours, direct |\n|---|---|---|---|\n"), "{text}");
        assert!(text.contains("| rollout of 3 replicas | no failed request | 3 / 40 ms | 0 / 12 ms |"), "{text}");
        assert!(text.contains("| 900 / 7000 ms | **1 / 30 ms** |"), "{text}");
        assert!(text.contains("| no gap over 3000 ms | – | **not played** |"), "{text}");
        let missed = missed(&results());
        assert_eq!(missed.len(), 2, "{missed:?}");
        assert!(missed[0].starts_with("rules-flushed, direct: wanted no failed request; 100 answered, 1 failed"));
    }

    #[test]
    fn the_json_has_a_cell_for_each_with_its_verdict() {
        let json = as_json("here", &results());
        let cells = json["cells"].as_array().unwrap();
        assert_eq!(cells.len(), 5);
        let cell = |fault: &str, way: &str| cells.iter().find(|c| c["fault"] == fault && c["way"] == way).unwrap();
        assert_eq!(cell("rollout", "direct")["met"], true);
        assert_eq!(cell("rollout", "nodeport")["met"], Value::Null);
        assert_eq!(
            (&cell("wedged", "direct")["error"], &cell("wedged", "direct")["count"]),
            (&json!("no"), &Value::Null)
        );
    }
}
