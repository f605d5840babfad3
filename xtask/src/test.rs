//! `cargo xtask test`: everything that must hold before a change is merged; `.ci/run` calls exactly this.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::provider::native::plan::ProxyMode;
use crate::suite::{self, Outcome};
use crate::{e2e, readme, run};

/// What each part's line begins with.
pub const PARTS: [&str; 6] =
    ["format", "lints", "tests", "live suite, iptables", "live suite, nftables", "fault matrix, some of each part"];

/// Scenarios that kube-proxy's mode makes no difference to: in nftables mode they are left out.
const ANY_MODE: [&str; 7] = ["s00_", "s07_", "s08_host_port", "s08_pod_security", "s10_", "s12_", "s13_"];

#[derive(clap::Args)]
pub struct Args {
    /// Leave the live suite out, and say so
    #[arg(long)]
    no_live: bool,
    /// Write what was seen into the READMEs
    #[arg(long, conflicts_with = "no_live")]
    record: bool,
}

/// How one part ended.
struct Part {
    name: &'static str,
    took: Duration,
    outcome: Result<Outcome>,
}

impl Part {
    fn of(name: &'static str, work: impl FnOnce() -> Result<Outcome>) -> Result<Self> {
        println!("=== {name}");
        let start = Instant::now();
        let outcome = work();
        run::check()?;
        Ok(Self { name, took: start.elapsed(), outcome })
    }

    fn good(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Outcome::good)
    }

    fn line(&self) -> String {
        let words = match &self.outcome {
            Ok(outcome) => format!("{}{}", self.name, outcome.counted()),
            Err(error) => format!("{}: {error:#}", self.name),
        };
        let line = readme::step_line(self.took, &words);
        if self.good() {
            return line;
        }
        let failed = self.outcome.iter().flat_map(Outcome::failed).map(|name| format!("\n             {name}"));
        line.replacen('✔', "✘", 1) + &failed.collect::<String>()
    }
}

/// Runs every part, also after one has failed, so that one run tells all.
pub fn run(args: &Args) -> Result<ExitCode> {
    run::catch_interrupts()?;
    let [format, lints, tests, iptables, nftables, faults] = PARTS;
    let mut parts = vec![
        Part::of(format, || suite::cargo(&["fmt", "--all", "--check"], &[]))?,
        Part::of(lints, || {
            suite::cargo(
                &["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"],
                &[],
            )
        })?,
        Part::of(tests, || suite::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"], &[]))?,
    ];
    let absent = if args.no_live { Some("--no-live was given".to_owned()) } else { suite::no_cluster_here() };
    if absent.is_none() {
        let skip = ANY_MODE.map(str::to_owned).to_vec();
        for (name, args) in [
            (iptables, e2e::Args::default()),
            (nftables, e2e::Args { proxy_mode: ProxyMode::Nftables, skip, ..e2e::Args::default() }),
            (faults, e2e::Args { suite: e2e::Suite::Faults, quick: true, ..e2e::Args::default() }),
        ] {
            parts.push(Part::of(name, || e2e::suite(&args))?);
        }
    }
    let mut summary: Vec<_> = parts.iter().map(Part::line).collect();
    if let Some(why) = &absent {
        summary.push(format!("⚠ LIVE SUITE NOT RUN: {why}. Nothing above has seen a real cluster."));
    }
    let results = parts.iter().filter_map(|part| Some((part.name, part.outcome.as_ref().ok()?)));
    let results = results.flat_map(|(name, outcome)| outcome.results.iter().map(move |line| format!("{name}: {line}")));
    let results: Vec<_> = results.collect();
    println!("\n{}\n{}", summary.join("\n"), results.join("\n"));
    let good = parts.iter().all(Part::good);
    if args.record && good && absent.is_none() {
        readme::record("test", &format!("$ cargo xtask test\n…\n{}", summary.join("\n")))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
