//! `bench size`: what a judgement of the largest cluster costs, from a file that is made up on the spot.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::size::{LARGEST, Size};

use super::forward::release;
use super::{machine, record};

/// What `diagnose -A --from` may take of it.
const TIME: Duration = Duration::from_secs(2);
const MEMORY_MIB: u64 = 1024;

#[derive(clap::Args)]
pub struct Args {
    /// The program to measure; without it a release build is made
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How often; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the figures into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// One run of the program.
struct Run {
    took: Duration,
    resident_mib: u64,
}

/// Measures, and fails where a limit is passed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => release()?,
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("cluster.json");
    let bytes = make(LARGEST, &path)?;
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..args.rounds.max(1) {
        let run = judge(&binary, &path)?;
        println!("round {}: {:.2} s, {} MiB", round + 1, run.took.as_secs_f64(), run.resident_mib);
        runs.push(run);
    }
    runs.sort_by_key(|r| r.took);
    let took = runs[runs.len() / 2].took;
    let memory = runs.iter().map(|r| r.resident_mib).max().unwrap_or_default();
    let Size { nodes, services, pods, .. } = LARGEST;
    let text = format!(
        "| nodes | Services | targets | pods | file | time (limit {} s) | memory (limit {MEMORY_MIB} MiB) |\n\
         |---|---|---|---|---|---|---|\n\
         | {nodes} | {services} | {} | {pods} | {} MiB | {:.2} s | {memory} MiB |\n\n{}",
        TIME.as_secs(),
        LARGEST.targets(),
        bytes >> 20,
        took.as_secs_f64(),
        machine::in_short(&binary)?,
    );
    println!("\n{text}");
    if args.record {
        record::section("size", &text)?;
    }
    Ok(if took <= TIME && memory <= MEMORY_MIB { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make(size: Size, path: &Path) -> Result<u64> {
    let mut out = BufWriter::new(File::create(path)?);
    size.write(&mut out)?;
    out.flush()?;
    Ok(path.metadata()?.len())
}

/// Runs the program, and looks meanwhile at the most memory that it has held.
fn judge(binary: &Path, file: &Path) -> Result<Run> {
    let start = Instant::now();
    let file = file.to_str().context("a path that is not UTF-8")?;
    let mut command = Command::new(binary);
    command.args(["diagnose", "-A", "--from", file, "-o", "json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the program")?;
    let status = format!("/proc/{}/status", child.id());
    let reader = child.stdout.take().context("no stdout")?;
    let said = std::thread::spawn(move || std::io::read_to_string(reader));
    let mut resident_mib = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        // VmHWM is the most there ever was (proc(5)), so that nothing between two looks is missed but the very end.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let most = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        resident_mib = most.map_or(resident_mib, |kib| kib / 1024);
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = start.elapsed();
    let said = said.join().map_err(|_| anyhow::anyhow!("the reader of the program's output failed"))??;
    ensure!(ended.code() == Some(1), "the program ended with {ended} instead of naming what is broken");
    let found = said.matches("\"severity\": \"error\"").count();
    ensure!(found >= LARGEST.broken(), "{found} errors found, but {} targets are broken", LARGEST.broken());
    Ok(Run { took, resident_mib })
}
