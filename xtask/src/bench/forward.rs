//! `cargo xtask bench forward`: every row in turn, round after round, then what came of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;

use super::figures::{COUNTED, Column, Figure, PACE, PACED, Row, TRANSFER};
use super::report::Report;
use super::rows::{Kind, Running, most_connections, most_port_forwards};
use super::site::{Seen, Site};
use super::{machine, plot, process, record, report};
use crate::provider::native::packages::{Package, ensure_these};
use crate::provider::native::plan::{Places, ProxyMode};
use crate::provider::native::{self};
use crate::{cluster, e2e as live, run, suite};

/// Name of the bench's own cluster.
const NAME: &str = "bench";
/// What the comparison needs beside a cluster.
const PACKAGES: &[Package] = &[("haproxy", &["/usr/sbin/haproxy"])];
/// So many rounds measure what does not change from round to round.
const STEADY_ROUNDS: usize = 2;
/// Seconds of a run of requests.
const REQUESTS: &str = "3";
/// Seconds of a run of new connections: longer ones would run out of ports.
const CONNECTS: &str = "1";
/// All values of the run that was recorded last.
const VALUES: &str = "forward.json";

/// Seconds of a run at a fixed rate: so long that one stall of the machine does not decide about p99.
const LATENCY: &str = "10";

#[derive(clap::Args)]
pub struct Args {
    /// A cluster that runs, started by this tree's `cluster up`; without it two of its own, one a kube-proxy mode
    #[arg(long)]
    cluster: Option<String>,
    /// Rows to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    rows: Vec<Kind>,
    /// Columns to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Column::ALL)]
    columns: Vec<Column>,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: u8,
    /// Only in this mode of kube-proxy
    #[arg(long, value_enum, conflicts_with = "cluster")]
    proxy_mode: Option<ProxyMode>,
    /// Add the rounds to those recorded last: where a figure swings, more of them tell more
    #[arg(long, requires = "record")]
    add: bool,
    /// The program to measure; without it this tree's release build
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Write all values there
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the figures there
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write what was seen into docs/performance.md, with the values and the drawing beside it
    #[arg(long)]
    record: bool,
}

/// Measures, and fails where a figure is below its floor or missing.
pub fn run(args: &Args) -> Result<ExitCode> {
    native::require_machine()?;
    run::catch_interrupts()?;
    let start = Instant::now();
    if args.rows.contains(&Kind::Haproxy) {
        ensure_these(PACKAGES, true)?;
    }
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => release()?,
    };
    let mut report = match args.add {
        true => serde_json::from_str(&record::read_beside(VALUES)?).context("what was recorded last")?,
        false => Report::new(usize::from(args.rounds), machine::describe(&binary)?),
    };
    if let Some(name) = &args.cluster {
        measure(name, &args.rows, args, &binary, &mut report, true)?;
    } else {
        let apart: Vec<_> = args.rows.iter().copied().filter(|kind| kind.depends_on_mode()).collect();
        for (mode, rows) in [(ProxyMode::Iptables, &args.rows), (ProxyMode::Nftables, &apart)] {
            if rows.is_empty() || args.proxy_mode.is_some_and(|only| only != mode) {
                continue;
            }
            let mut up = live::up_args(NAME);
            (up.workers, up.proxy_mode) = (0, mode);
            let measured = cluster::up(&up).and_then(|_| measure(NAME, rows, args, &binary, &mut report, false));
            // What went wrong in the measurement comes first.
            let ended = live::end(NAME);
            measured?;
            ended?;
        }
    }
    report.minutes += start.elapsed().as_secs_f64() / 60.0;
    finish(args, &report)
}

fn finish(args: &Args, report: &Report) -> Result<ExitCode> {
    let (text, json, drawing) = (report::markdown(report), serde_json::to_string_pretty(report)?, plot::draw(report));
    println!("\n{text}");
    if let Some(path) = &args.json {
        std::fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, &drawing).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.record {
        record::section("forward", &format!("![the same figures as bars](performance/forward.svg)\n\n{text}"))?;
        record::beside(VALUES, &json)?;
        record::beside("forward.svg", &drawing)?;
    }
    Ok(if report.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the product as it is shipped.
pub fn release() -> Result<PathBuf> {
    let built = suite::cargo(&["build", "--locked", "--release", "--bin", "kubectl-bookaccess"], &[])?;
    ensure!(built.good(), "kubectl-bookaccess cannot be built");
    let folder = std::env::current_exe().context("where this program lies")?;
    let binary =
        folder.parent().and_then(Path::parent).context("a folder of builds")?.join("release/kubectl-bookaccess");
    ensure!(binary.is_file(), "{} is not where it was built", binary.display());
    Ok(binary)
}

fn measure(name: &str, rows: &[Kind], args: &Args, binary: &Path, report: &mut Report, stays: bool) -> Result<()> {
    let descriptor = Places::new(name).descriptor();
    let cluster = Cluster::load(descriptor.to_str().context("a path that is not UTF-8")?)?;
    report.machine.insert("Kubernetes".into(), cluster.kubernetes_version.clone());
    let site = Site::prepare(cluster, binary)?;
    let measured = rounds(&site, rows, args, report);
    if stays {
        site.clear()?;
    }
    measured
}

/// Each round begins with another row, and every other one goes backwards: what drifts falls on all.
fn rounds(site: &Site, rows: &[Kind], args: &Args, report: &mut Report) -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mode = site.cluster.proxy_mode.clone();
    let recorded = rows.iter().map(|kind| report.row(&kind.title(&mode)).rounds()).max().unwrap_or_default();
    let all = recorded + usize::from(args.rounds);
    for round in recorded..all {
        let mut order = rows.to_vec();
        order.rotate_left(round % rows.len().max(1));
        if round % 2 == 1 {
            order.reverse();
        }
        for kind in order {
            run::check()?;
            let title = kind.title(&mode);
            let start = Instant::now();
            report.busy.push(machine::settled()?);
            let outcome = one(site, kind, &args.columns, round, report.row(&title), logs.path());
            run::check()?;
            if let Err(error) = outcome {
                // The others are measured all the same; what is missing fails the run at its end.
                report.row(&title).note(format!("{error:#}"));
            }
            let line = report.row(&title).line(round);
            println!("round {}/{all}  {title}, {:.0} s: {line}", round + 1, start.elapsed().as_secs_f32());
        }
    }
    Ok(())
}

/// One row of one round: started, measured, ended.
fn one(site: &Site, kind: Kind, columns: &[Column], round: usize, row: &mut Row, logs: &Path) -> Result<()> {
    let mut running = Running::start(kind, site, logs)?;
    let (mut bytes, mut seconds, mut opened) = (0, 0.0, 0);
    let carried = site.kernel_connections()?;
    for column in Column::ALL.into_iter().filter(|column| columns.contains(column)) {
        run::check()?;
        running.alive()?;
        if column.is_steady() {
            if round < STEADY_ROUNDS {
                steady(site, kind, &running, column, round, row)?;
            }
            continue;
        }
        site.settle()?;
        let before = process::cpu_seconds(&running.processes);
        let seen =
            load(site, running.port, column).with_context(|| format!("{column:?}")).with_context(|| running.said())?;
        if column.is_transfer() {
            bytes += seen.bytes;
            seconds += process::cpu_seconds(&running.processes) - before;
        }
        opened += seen.opened();
        keep(column, &seen, round, row);
    }
    if bytes > 0 && !running.processes.is_empty() {
        row.put(Figure::Cpu, round, seconds / (bytes as f64 / 1e9));
    }
    if kind == Kind::Kernel {
        let carried = site.kernel_connections()?.saturating_sub(carried);
        ensure!(carried >= opened, "of {opened} connections the kernel's rules carried only {carried}");
    }
    Ok(())
}

fn load(site: &Site, port: u16, column: Column) -> Result<Seen> {
    let eighth = (TRANSFER / 8).to_string();
    let whole = TRANSFER.to_string();
    let transfer =
        |kind, connections: &str, bytes: &str| site.load(kind, port, &["--connections", connections, "--bytes", bytes]);
    let timed = |kind, connections: &str, seconds: &str| {
        site.load(kind, port, &["--connections", connections, "--seconds", seconds])
    };
    match column {
        Column::Down1 => transfer("download", "1", &whole),
        Column::Down8 => transfer("download", "8", &eighth),
        Column::Up1 => transfer("upload", "1", &whole),
        Column::Up8 => transfer("upload", "8", &eighth),
        Column::Req1 => timed("requests", "1", REQUESTS),
        Column::Req16 => timed("requests", "16", REQUESTS),
        Column::Req64 => timed("requests", "64", REQUESTS),
        Column::Conn1 => timed("connects", "1", CONNECTS),
        Column::Conn4 => timed("connects", "4", CONNECTS),
        Column::Conn16 => timed("connects", "16", CONNECTS),
        Column::Latency => {
            let (connections, rate) = (PACED.to_string(), PACE.to_string());
            site.load("paced", port, &["--connections", &connections, "--rate", &rate, "--seconds", LATENCY])
        }
        Column::Upgrades | Column::Rss1k | Column::Rss10k => unreachable!("measured by `steady`"),
    }
}

/// Keeps what a load saw. A run in which something failed says so.
fn keep(column: Column, seen: &Seen, round: usize, row: &mut Row) {
    row.failed += seen.failed;
    if let Some(first) = seen.failures.first() {
        row.note(format!("{column:?}: {first}").to_lowercase());
    }
    let speed = seen.bytes as f64 / 1e6 / seen.seconds;
    let rate = seen.answers as f64 / seen.seconds;
    let figure = match column {
        Column::Down1 => Figure::Down1,
        Column::Down8 => Figure::Down8,
        Column::Up1 => Figure::Up1,
        Column::Up8 => Figure::Up8,
        Column::Req1 => Figure::Req1,
        Column::Req16 => Figure::Req16,
        Column::Req64 => Figure::Req64,
        Column::Conn1 => Figure::Conn1,
        Column::Conn4 => Figure::Conn4,
        Column::Conn16 => Figure::Conn16,
        Column::Latency => {
            let quantiles = &seen.quantiles_us;
            for (figure, value) in
                [(Figure::P50, quantiles.p50), (Figure::P99, quantiles.p99), (Figure::P999, quantiles.p999)]
            {
                if let Some(value) = value {
                    row.put(figure, round, value);
                }
            }
            return;
        }
        Column::Upgrades | Column::Rss1k | Column::Rss10k => return,
    };
    row.put(figure, round, if column.is_transfer() { speed } else { rate });
}

/// What stays the same from round to round.
fn steady(site: &Site, kind: Kind, running: &Running, column: Column, round: usize, row: &mut Row) -> Result<()> {
    let (figure, wanted) = match column {
        Column::Upgrades if kind == Kind::Tunnel => return upgrades(site, running, round, row),
        Column::Rss1k if !running.processes.is_empty() => (Figure::Rss1k, 1000),
        Column::Rss10k if matches!(kind, Kind::Tunnel | Kind::Kubectl) => (Figure::Rss10k, most_port_forwards()),
        Column::Rss10k if !running.processes.is_empty() => (Figure::Rss10k, most_connections()),
        _ => return Ok(()),
    };
    site.settle()?;
    let held = site.hold(running.port, wanted)?;
    if held.seen.held < wanted as u64 {
        let why = held.seen.failures.first().cloned().unwrap_or_default();
        row.note(format!("only {} of {wanted} idle connections can be held: {why}", held.seen.held));
        // The memory of fewer connections is no figure.
        return Ok(());
    }
    row.put(figure, round, process::resident(&running.processes)? as f64 / 1e6);
    Ok(())
}

/// How many port-forwards of the API server carry many connections.
fn upgrades(site: &Site, running: &Running, round: usize, row: &mut Row) -> Result<()> {
    site.settle()?;
    let before = site.port_forwards()?;
    let count = COUNTED.to_string();
    let seen = site.load("connects", running.port, &["--connections", "4", "--seconds", "50", "--count", &count])?;
    row.failed += seen.failed;
    ensure!(seen.answers == COUNTED, "only {} of {COUNTED} connections in 50 s", seen.answers);
    row.put(Figure::Upgrades, round, (site.port_forwards()? - before) as f64);
    Ok(())
}
