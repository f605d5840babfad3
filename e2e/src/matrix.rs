//! The fault matrix: a row is a fault as data, with what must come of it, written down beforehand. One course plays all.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::{Bookinfo, NAMESPACE};
use crate::beside;
use crate::cluster::Cluster;
use crate::condition::until;
use crate::faults::Fault;
use crate::objects::{Objects, Versions};
use crate::page::{self, Seen};
use crate::plugin::{Diagnosis, Plugin};
use crate::scenario::Stage;

/// Names the file to which each row's result is added, one JSON object a line ([`Played`]).
pub const RESULTS: &str = "BOOKACCESS_E2E_RESULTS";
/// Set where only the rows of the gate are to be played.
pub const QUICK: &str = "BOOKACCESS_E2E_QUICK";
/// How soon the page must be there once `fix` has said so.
const PAGE: Duration = Duration::from_secs(3);
/// How long a fault may take until it can be told: what is seconds old is not judged yet.
const TOLD: Duration = Duration::from_secs(30);
/// A look with time-outs in it.
const LOOK: Duration = Duration::from_secs(6);

/// How a fault ends, once `fix` was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The page is back at its address, and stays without any fallback.
    Repaired,
    /// The page is back at its address by the fallback; the fault is left, and told.
    LedAround,
    /// No allowed path exists: exit code 1 (or as the row says), nothing is left changed.
    Unreachable,
    /// The page came up by itself, and `fix` waited for it. Nothing is written.
    Awaited,
    /// The page works all the while. Nothing is written.
    Reachable,
    /// The way is open all the while, and the application itself fails. Nothing is written.
    OwnError,
    /// The API server lets the user see nothing: every verb ends at once and names the code. Nothing is written.
    Refused,
}

/// For rows that kube-proxy's mode may make a difference to.
pub const BOTH_MODES: &[&str] = &["iptables", "nftables"];

/// What a row needs of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A control plane and two workers; without kube-proxy the control plane is enough.
    Plain,
    /// Five nodes, so that two may be down that nobody needs.
    FiveNodes,
    /// IPv6 besides IPv4.
    DualStack,
}

impl Shape {
    /// The shape of a cluster: it plays the rows that need just this.
    pub fn of(cluster: &Cluster) -> Self {
        match cluster.nodes.len() {
            _ if cluster.dual_stack => Self::DualStack,
            5.. => Self::FiveNodes,
            _ => Self::Plain,
        }
    }
}

/// One fault, and what must come of it.
pub struct Row {
    /// The part of the path that is broken, as the matrix groups its rows.
    pub line: &'static str,
    pub name: &'static str,
    /// The application, before or after the fault.
    pub app: fn(&Cluster) -> Result<Bookinfo>,
    /// Whether the application gets ready at all.
    pub gets_ready: bool,
    pub faults: fn(&Cluster) -> Result<Vec<Fault>>,
    /// Injected before the application exists: else its rules are written already and go on working.
    pub before_app: bool,
    /// How the client sees it.
    pub seen: Vec<Seen>,
    /// What the command is told to look at; nothing where it finds that by itself.
    pub targets: &'static [&'static str],
    /// Who runs the command.
    pub by: fn(&Stage) -> Result<Plugin>,
    /// The leading code; several mean any of them.
    pub codes: &'static [&'static str],
    /// Codes that must stand behind it, in this order.
    pub also: &'static [&'static str],
    /// Codes that may be told besides.
    pub may: &'static [&'static str],
    /// `diagnose`'s exit code.
    pub exit: i32,
    /// How long it may take.
    pub look: Duration,
    /// What `fix --yes` is allowed and told besides.
    pub flags: &'static [&'static str],
    pub end: End,
    /// `fix`'s exit code, where it is not what `end` says.
    pub fix_exit: Option<i32>,
    pub shape: Shape,
    /// Part of the gate.
    pub quick: bool,
    /// kube-proxy's modes in which it is played.
    pub modes: &'static [&'static str],
}

impl Default for Row {
    fn default() -> Self {
        Self {
            line: "",
            name: "",
            app: |_| Ok(Bookinfo::page()),
            gets_ready: true,
            faults: |_| Ok(Vec::new()),
            before_app: false,
            seen: vec![Seen::Refused],
            targets: &[],
            by: |stage| Ok(stage.operator.clone()),
            codes: &[],
            also: &[],
            may: &[],
            exit: 1,
            look: LOOK,
            flags: &[],
            end: End::Repaired,
            fix_exit: None,
            shape: Shape::Plain,
            quick: false,
            modes: &["iptables"],
        }
    }
}

/// What came of a row: a line of the printed table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Played {
    pub line: String,
    pub name: String,
    pub mode: String,
    /// The codes that may lead, and those that were told.
    pub expected: String,
    pub found: Vec<String>,
    pub diagnosed_ms: u128,
    /// From the start of `fix` to the first page at the original address.
    pub page_ms: Option<u128>,
    /// What carried the page after `fix`.
    pub path: String,
    pub end: String,
    pub undone: bool,
}

/// Plays a row: broken as the client sees it, named, brought back, undone. Where other tools are asked for, they look at
/// what is broken instead.
pub fn play(stage: &Stage, row: &Row) -> Result<()> {
    if let Some(popeye) = beside::asked() {
        return beside::play(stage, row, &popeye);
    }
    let mut played = Played {
        line: row.line.to_owned(),
        name: row.name.to_owned(),
        mode: stage.cluster.proxy_mode.clone(),
        expected: row.codes.join(" or "),
        ..Played::default()
    };
    let result = course(stage, row, &mut played);
    if result.is_err() {
        played.end = "FAILED".to_owned();
    }
    keep(&played)?;
    result
}

/// Starts the application and injects the fault; `healthy` is called between the two, where the page opens there.
pub(crate) fn inject(stage: &Stage, row: &Row, healthy: impl FnOnce() -> Result<()>) -> Result<()> {
    let app = (row.app)(&stage.cluster)?;
    let inject = || (row.faults)(&stage.cluster)?.into_iter().try_for_each(|fault| stage.inject(fault));
    if row.before_app {
        inject()?;
    }
    app.start(&stage.cluster)?;
    if row.gets_ready {
        crate::app::wait_ready(&stage.cluster, NAMESPACE)?;
    }
    if !row.before_app {
        if row.gets_ready {
            stage.page(PAGE).context("before the fault")?;
            healthy()?;
        }
        inject()?;
    }
    Ok(())
}

fn course(stage: &Stage, row: &Row, played: &mut Played) -> Result<()> {
    inject(stage, row, || Ok(()))?;
    let by = (row.by)(stage)?;
    if row.end == End::Refused {
        return refused(stage, row, &by, played);
    }
    if matches!(row.end, End::Reachable | End::OwnError) {
        return reachable(stage, row, &by, played);
    }
    stage.no_page(&row.seen)?;
    let before = Objects::read(&stage.cluster)?;
    diagnose(row, &by, played)?;
    let said = fix(stage, row, &by, played)?;
    after(stage, row, &by, played).with_context(|| format!("fix said\n{said}"))?;
    by.must(&["fix", "--undo", "--yes"], 0)?;
    before.must_equal(&Objects::read(&stage.cluster)?).context("after --undo")?;
    played.undone = true;
    Ok(())
}

/// The way is open all the while, whatever is told.
fn reachable(stage: &Stage, row: &Row, by: &Plugin, played: &mut Played) -> Result<()> {
    let open = || if row.end == End::OwnError { stage.no_page(&row.seen) } else { stage.page(PAGE).map(|_| ()) };
    open().context("with the fault")?;
    diagnose(row, by, played)?;
    let before = Versions::read(&stage.cluster, &[NAMESPACE])?;
    let start = Instant::now();
    by.must(&[&["fix", "--yes"], row.flags, row.targets].concat(), row.fix_exit.unwrap_or(0))?;
    open().context("after fix")?;
    played.page_ms = Some(start.elapsed().as_millis()).filter(|_| row.end == End::Reachable);
    before.must_equal(&Versions::read(&stage.cluster, &[NAMESPACE])?)?;
    "reachable".clone_into(&mut played.end);
    played.undone = true;
    path(by, row, played)
}

/// No verb can look, and each says why.
fn refused(stage: &Stage, row: &Row, by: &Plugin, played: &mut Played) -> Result<()> {
    let before = Versions::read(&stage.cluster, &[NAMESPACE])?;
    for verb in [&["diagnose"][..], &["fix", "--yes"], &["status"], &["forward", "-n", NAMESPACE, "svc/productpage"]] {
        let ended = by.must(verb, row.exit)?;
        let named = row.codes.iter().any(|code| ended.stderr.contains(code));
        ensure!(named, "{verb:?} names none of {:?}: {}", row.codes, ended.stderr);
        if verb == ["diagnose"] {
            played.diagnosed_ms = ended.took.as_millis();
        }
    }
    played.found = row.codes.iter().map(|code| (*code).to_owned()).collect();
    before.must_equal(&Versions::read(&stage.cluster, &[NAMESPACE])?)?;
    "told".clone_into(&mut played.end);
    played.undone = true;
    Ok(())
}

/// Waits until the cause is told as the row says, by a look that did not have to wait for what is only seconds old.
pub(crate) fn diagnose(row: &Row, by: &Plugin, played: &mut Played) -> Result<()> {
    until("the cause is named", TOLD, || {
        let start = Instant::now();
        let diagnosis = by.diagnose(row.targets, row.exit)?;
        let took = start.elapsed();
        played.diagnosed_ms = took.as_millis();
        played.found = diagnosis.codes().into_iter().map(str::to_owned).collect();
        judge(row, &diagnosis)?;
        ensure!(took <= row.look, "the look took {took:?}");
        Ok(())
    })
}

fn judge(row: &Row, diagnosis: &Diagnosis) -> Result<()> {
    let codes = diagnosis.codes();
    let shown = || format!("{codes:?}\n{:#}", diagnosis.0["findings"]);
    match codes.first() {
        None => ensure!(row.codes.is_empty(), "nothing is found"),
        Some(first) if row.codes.is_empty() => ensure!(row.may.contains(first), "found: {}", shown()),
        Some(first) => ensure!(row.codes.contains(first), "{:?} does not lead: {}", row.codes, shown()),
    }
    let mut rest = codes.iter().skip(1);
    for code in row.also {
        ensure!(rest.any(|c| c == code), "{code} is missing or not in its place: {}", shown());
    }
    let meant = |code: &str| [row.codes, row.also, row.may].concat().contains(&code);
    for finding in diagnosis.findings() {
        let code = finding["code"].as_str().unwrap_or_default();
        let is_wrong = finding["severity"] == "error" && finding["confidence"] == "certain" && !meant(code);
        ensure!(!is_wrong, "{code} is wrong, and said to be certain: {}", shown());
    }
    let leads = diagnosis.findings().into_iter().next();
    let is_guess = leads.is_some_and(|finding| finding["confidence"] == "possible");
    ensure!(row.codes.is_empty() || !is_guess, "the leading code is a guess: {}", shown());
    Ok(())
}

/// Runs `fix`, while an outside client looks for the page again and again, and gives what it said.
fn fix(stage: &Stage, row: &Row, by: &Plugin, played: &mut Played) -> Result<String> {
    let reached = !matches!(row.end, End::Unreachable);
    let code = row.fix_exit.unwrap_or(if reached { 0 } else { 1 });
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let (ended, first) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let seen = page::glimpse(&stage.cluster.client, &stage.url());
                if seen.is_ok_and(|seen| seen.is_page()) {
                    return Some(start.elapsed());
                }
            }
            None
        });
        let ended = by.must(&[&["fix", "--yes"], row.flags, row.targets].concat(), code);
        over.store(true, Ordering::Relaxed);
        (ended, watch.join().ok().flatten())
    });
    let ended = ended?;
    let said = format!("{}\n{}", ended.stdout, ended.stderr);
    if reached {
        stage.page(PAGE).with_context(|| format!("after fix\n{said}"))?;
        played.page_ms = Some(first.unwrap_or_else(|| start.elapsed()).as_millis());
    }
    Ok(said)
}

/// What carries the page, and whether it stays without a fallback.
fn after(stage: &Stage, row: &Row, by: &Plugin, played: &mut Played) -> Result<()> {
    path(by, row, played)?;
    if row.end == End::Unreachable {
        "unreachable, told".clone_into(&mut played.end);
        return Ok(());
    }
    // Where none was opened there is none to stop.
    by.run(&["forward", "stop"])?;
    if let End::Repaired | End::Awaited = row.end {
        stage.page(PAGE).context("with the fallback stopped: it was not repaired")?;
        let end = if row.end == End::Repaired { "repaired" } else { "waited for" };
        end.clone_into(&mut played.end);
    } else {
        stage.no_page(&row.seen).context("with the fallback stopped: it was repaired, not led around")?;
        "led around".clone_into(&mut played.end);
    }
    Ok(())
}

fn path(by: &Plugin, row: &Row, played: &mut Played) -> Result<()> {
    let ended = by.run(&[&["status", "-o", "json"], row.targets].concat())?;
    let status: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("no JSON: {}", ended.stdout))?;
    let path = &status["targets"][0]["path"];
    let words = [&path["by"], &path["carrier"]].into_iter().filter_map(Value::as_str);
    played.path = words.collect::<Vec<_>>().join(", ");
    ensure!(!played.path.is_empty(), "status names no path: {status:#}");
    Ok(())
}

/// Adds a result to the file that the environment names.
pub(crate) fn keep(result: &impl Serialize) -> Result<()> {
    let Some(file) = std::env::var_os(RESULTS) else { return Ok(()) };
    let mut file = OpenOptions::new().append(true).create(true).open(file).context("the file of results")?;
    writeln!(file, "{}", serde_json::to_string(result)?).context("the file of results")
}
