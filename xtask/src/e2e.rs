//! `cargo xtask e2e`: the live suite or the fault matrix, on clusters of its own that are gone afterwards.

mod among;
mod matrix;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ::e2e::cluster::is_k3s;
use anyhow::{Context, Result, ensure};

use crate::cluster::{self, UpArgs};
use crate::provider::native::plan::{Places, ProxyMode};
use crate::provider::native::{self, Descriptor};
use crate::provider::{self, Provider};
use crate::suite::{self, Outcome};
use crate::{readme, run};
use among::{Among, Played, Stop};

/// Workers of a cluster when nothing is said.
const WORKERS: u8 = 2;
/// Workers of a cluster in which two nodes may be down that nobody needs.
const FIVE_NODES: u8 = 4;

/// What is played on the cluster.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// The scenarios
    #[default]
    Live,
    /// Every fault, named, brought back, undone
    Faults,
    /// The page and its fallback by IPv6, on a cluster with both families
    DualStack,
}

impl Suite {
    /// Its tests, for cargo.
    fn cargo(self) -> [&'static str; 8] {
        let test = match self {
            Self::Live => "live",
            Self::Faults => "faults",
            Self::DualStack => "dual_stack",
        };
        ["test", "--locked", "-p", "e2e", "--features", "live", "--test", test]
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[arg(long, value_enum, default_value_t)]
    pub suite: Suite,
    #[arg(long, value_enum, default_value_t)]
    pub provider: Among,
    /// Only the scenarios whose names hold this
    #[arg(long)]
    pub scenario: Option<String>,
    /// Leave out the scenarios whose names hold this
    #[arg(long)]
    pub skip: Vec<String>,
    /// Leave the cluster running
    #[arg(long)]
    pub keep: bool,
    #[arg(long, value_enum, default_value_t)]
    pub proxy_mode: ProxyMode,
    /// By default v1.37.2; of kind the newest that it runs on this machine, of k3d v1.35.5 (v1.34.4 with cgroup v1)
    #[arg(long)]
    pub kubernetes_version: Option<String>,
    /// Install Docker where it is missing, and start a daemon of our own where none answers (provider kind; Debian, root)
    #[arg(long)]
    pub install: bool,
    /// k3s' image and tag for provider testcontainers; by default that of the Kubernetes version
    #[arg(long, value_name = "IMAGE:TAG")]
    pub k3s_image: Option<String>,
    /// Worker nodes of the cluster that is made (2; the whole matrix also makes one with 4, and one of both families)
    #[arg(long, conflicts_with_all = ["cluster", "record"], value_parser = clap::value_parser!(u8).range(2..=10))]
    pub workers: Option<u8>,
    /// The cluster has IPv6 besides IPv4; that of the suite dual-stack always has
    #[arg(long, conflicts_with = "record")]
    pub dual_stack: bool,
    /// Name of the cluster that is made
    #[arg(long, default_value = "e2e")]
    pub name: String,
    /// A running cluster, which is left as it is; without it one is made and taken down again
    #[arg(long, conflicts_with_all = ["name", "keep", "proxy_mode", "kubernetes_version", "dual_stack"])]
    pub cluster: Option<String>,
    /// Of the faults only those of the gate: some of each part of the path
    #[arg(long)]
    pub quick: bool,
    /// Write the matrix into docs/fault-matrix.md
    #[arg(long, conflicts_with_all = ["quick", "scenario", "skip", "cluster"])]
    pub record: bool,
    #[command(flatten)]
    pub report: report::Files,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            suite: Suite::default(),
            provider: Among::default(),
            scenario: None,
            skip: Vec::new(),
            keep: false,
            proxy_mode: ProxyMode::default(),
            kubernetes_version: None,
            install: false,
            k3s_image: None,
            workers: None,
            dual_stack: false,
            name: "e2e".to_owned(),
            cluster: None,
            quick: false,
            record: false,
            report: report::Files::default(),
        }
    }
}

impl Args {
    fn version(&self, provider: Provider) -> &str {
        self.kubernetes_version.as_deref().unwrap_or_else(|| provider.default_version())
    }

    fn wants_dual_stack(&self) -> bool {
        self.dual_stack || self.suite == Suite::DualStack
    }
}

/// Runs the suite as asked. Of several providers each that is there counts.
pub fn run(args: &Args) -> Result<ExitCode> {
    run::catch_interrupts()?;
    let several = args.provider == Among::All;
    ensure!(
        !several || (args.cluster.is_none() && !args.keep),
        "--provider all makes one cluster after the other: leave --cluster and --keep away"
    );
    let mut stops = Vec::new();
    for &provider in args.provider.providers() {
        let args = &of_provider(args, provider);
        let played = match require(args, provider) {
            Err(why) if several => Played::not_there(&why),
            required => Played::Ended(required.and_then(|()| play_on(args, provider))),
        };
        let (version, mode) = (args.version(provider).to_owned(), args.proxy_mode);
        stops.push(Stop { provider, version, mode, title: title(args, provider), played });
        if run::interrupted() {
            break;
        }
    }
    report::write(&args.report, &stops)?;
    if several {
        print!("\n{}", among::table(&stops));
        run::check()?;
        return Ok(if among::good(&stops) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let good = match stops.pop().map(|stop| stop.played) {
        Some(Played::Ended(ended)) => ended?.good(),
        Some(Played::NotThere(_)) | None => false,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is played on this provider: one node of k3s without kube-proxy has a suite of its own.
fn of_provider(args: &Args, provider: Provider) -> Args {
    let args = args.clone();
    if provider != Provider::Testcontainers {
        return args;
    }
    Args { suite: Suite::Faults, proxy_mode: ProxyMode::None, workers: Some(0), dual_stack: false, ..args }
}

/// What is played, and where.
fn title(args: &Args, provider: Provider) -> String {
    let suite = match args.suite {
        Suite::Live => "live suite",
        Suite::Faults => "fault matrix",
        Suite::DualStack => "suite for IPv6",
    };
    let place = args.cluster.as_ref().map_or_else(
        || {
            let (mode, version) = (args.proxy_mode.name(), args.version(provider));
            format!("provider {}, Kubernetes {version}, kube-proxy {mode}", provider.name())
        },
        |name| format!("cluster {name}"),
    );
    format!("{suite}, {place}")
}

/// Fails, with what to do instead, where the suite cannot be played on this provider here.
fn require(args: &Args, provider: Provider) -> Result<()> {
    let native = Provider::Native.name();
    let running = args.cluster.as_deref().map(cluster::loaded).transpose()?;
    let (name, mode) = running.as_ref().map_or((provider.name(), args.proxy_mode.name()), |running| {
        (running.provider.as_str(), running.proxy_mode.as_str())
    });
    ensure!(
        args.suite != Suite::Faults || !is_k3s(name) || mode == ProxyMode::None.name(),
        "the faults of kube-proxy need its DaemonSet, which k3s has not: play the fault matrix there by --proxy-mode none"
    );
    ensure!(
        provider == Provider::Testcontainers || args.k3s_image.is_none(),
        "--k3s-image is for --provider testcontainers: leave it away"
    );
    ensure!(
        args.suite != Suite::DualStack || name == native,
        "the suite for IPv6 is played on provider native: leave --provider away"
    );
    ensure!(
        !args.record || name == native,
        "docs/fault-matrix.md holds what was seen on provider native: leave --record away"
    );
    match running {
        Some(running) if running.provider != native => Ok(()),
        Some(_) => native::require_machine(),
        None => provider.require(args.version(provider), args.proxy_mode, args.install, args.k3s_image.as_deref()),
    }
}

/// The suite on provider native.
pub fn suite(args: &Args) -> Result<Outcome> {
    require(args, Provider::Native)?;
    play_on(args, Provider::Native)
}

/// Brings the cluster up, runs the suite, and takes the cluster down whatever happened.
fn play_on(args: &Args, provider: Provider) -> Result<Outcome> {
    let binary = match &args.cluster {
        Some(running) => product_for(&cluster::loaded(running)?.provider)?,
        None => product_for(provider.name())?,
    };
    // Built before the cluster starts: what does not compile needs none.
    let build = [&args.suite.cargo()[..], &["--no-run"]].concat();
    ensure!(suite::cargo(&build, &[])?.good(), "the suite cannot be built");
    let results = tempfile::NamedTempFile::new()?;
    let play = |cluster: &str| play(args, cluster, &binary, results.path(), &[]);
    let outcome = match &args.cluster {
        Some(running) => play(running)?,
        None => {
            let mut all = Outcome::none();
            for shape in shapes(args, provider) {
                all.add(on_its_own(args, provider, shape, play)?);
            }
            all
        }
    };
    print!("{}", table(&outcome.tests));
    if args.suite == Suite::Faults {
        let text = matrix::table(&std::fs::read_to_string(results.path())?)?;
        println!("\n{text}");
        if args.record && outcome.good() {
            matrix::record(args.proxy_mode, args.version(provider), &text)?;
        }
    }
    if outcome.good() {
        let asked = args.scenario.as_deref().map_or("at all".to_owned(), |name| format!("named like {name}"));
        ensure!(outcome.tests.iter().any(|(_, how, _)| how == "ok"), "there is no scenario {asked}");
    }
    Ok(outcome)
}

/// What the clusters differ in that are made one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    workers: u8,
    dual_stack: bool,
}

/// The clusters that are needed: the whole matrix has rows for a larger one, and for one of both families.
fn shapes(args: &Args, provider: Provider) -> Vec<Shape> {
    let asked = Shape { workers: args.workers.unwrap_or(WORKERS), dual_stack: args.wants_dual_stack() };
    let plain = args.workers.is_none() && !asked.dual_stack && args.proxy_mode != ProxyMode::None;
    if args.suite != Suite::Faults || !plain || args.quick || args.keep || args.scenario.is_some() {
        return vec![asked];
    }
    let five = Shape { workers: FIVE_NODES, ..asked };
    let both = Shape { dual_stack: true, ..asked };
    // Which family a Service has does not depend on kube-proxy's mode. Only provider native has both.
    let both = (args.proxy_mode == ProxyMode::Iptables && provider == Provider::Native).then_some(both);
    [asked, five].into_iter().chain(both).collect()
}

/// Plays on a cluster that is brought up for it, and taken down whatever happened.
fn on_its_own(
    args: &Args,
    provider: Provider,
    shape: Shape,
    play: impl Fn(&str) -> Result<Outcome>,
) -> Result<Outcome> {
    let mut up = up_args(&args.name);
    up.provider = provider;
    (up.workers, up.dual_stack) = (shape.workers, shape.dual_stack);
    up.kubernetes_version = args.kubernetes_version.clone();
    up.proxy_mode = args.proxy_mode;
    up.install = args.install;
    cluster::up_of(&up, args.k3s_image.as_deref())?;
    let played = play(&args.name);
    if args.keep {
        println!("cluster {name} is left running; end it by: cargo xtask cluster down --name {name}", name = args.name);
        return played;
    }
    // What went wrong in the suite comes first.
    let ended = end(&args.name);
    let outcome = played?;
    ended?;
    Ok(outcome)
}

/// Runs the suite on a cluster that is up; each test is told `more` by its environment.
pub fn play(
    args: &Args,
    cluster: &str,
    binary: &Path,
    results: &Path,
    more: &[(&'static str, PathBuf)],
) -> Result<Outcome> {
    let places = Places::new(cluster);
    let descriptor = cluster::loaded(cluster)?;
    let left_out = left_out(args, &descriptor)?;
    let mut command = args.suite.cargo().to_vec();
    command.extend(["--", "--test-threads=1"]);
    command.extend(args.scenario.as_deref());
    let skipped = args.skip.iter().chain(left_out.iter().map(|(name, _)| name));
    command.extend(skipped.flat_map(|name| ["--skip", name.as_str()]));
    let mut env = vec![
        ("BOOKACCESS_E2E_CLUSTER", places.descriptor()),
        ("BOOKACCESS_BIN", binary.to_owned()),
        ("BOOKACCESS_XTASK", std::env::current_exe().context("where this program lies")?),
        (::e2e::matrix::RESULTS, results.to_owned()),
    ];
    env.extend_from_slice(more);
    if args.quick {
        env.push((::e2e::matrix::QUICK, PathBuf::from("1")));
    }
    let mut outcome = suite::cargo(&command, &env)?;
    for (name, why) in left_out {
        outcome.leave_out(name, why);
    }
    if !outcome.good()
        && let Some(folder) = provider::keep_evidence(cluster)?
    {
        println!("what can be learnt of the cluster is kept in {}", folder.display());
    }
    Ok(outcome)
}

/// The scenarios that such a cluster cannot play, each with the reason.
fn left_out(args: &Args, cluster: &Descriptor) -> Result<Vec<(String, &'static str)>> {
    let (provider, proxy_mode) = (cluster.provider.as_str(), cluster.proxy_mode.as_str());
    if args.suite != Suite::Live || (!is_k3s(provider) && proxy_mode != ProxyMode::None.name()) {
        return Ok(Vec::new());
    }
    let asked = |name: &String| {
        let wanted = args.scenario.as_deref().is_none_or(|words| name.contains(words));
        wanted && !args.skip.iter().any(|words| name.contains(words.as_str()))
    };
    let all = suite::listed(&args.suite.cargo())?.into_iter().filter(asked);
    Ok(all.filter_map(|name| ::e2e::scenario::left_out(&name, provider, proxy_mode).map(|why| (name, why))).collect())
}

/// One line a scenario: how it ended, how long it took, its name.
fn table(tests: &[(String, String, Duration)]) -> String {
    let line = |(name, how, took): &(String, String, Duration)| {
        if how.starts_with("left out") {
            return format!("–             {name} ({how})\n");
        }
        let line = readme::step_line(*took, name);
        let line = if how == "ok" { line } else { line.replacen('✔', "✘", 1) };
        format!("{line}\n")
    };
    tests.iter().map(line).collect()
}

/// Builds the product as the nodes of such a cluster can run it: those of k3s have no C library.
fn product_for(provider: &str) -> Result<PathBuf> {
    if !is_k3s(provider) {
        return product();
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // A target folder of its own: other flags would throw the others' work away.
    let folder = readme::top().join(STATIC);
    let place = folder.display().to_string();
    let words = ["build", "--locked", "--bin", "kubectl-bookaccess", "--target", &target, "--target-dir", &place];
    let flags = [("CARGO_ENCODED_RUSTFLAGS", PathBuf::from("-Ctarget-feature=+crt-static"))];
    ensure!(suite::cargo(&words, &flags)?.good(), "kubectl-bookaccess cannot be built without a C library");
    let binary = folder.join(target).join("debug/kubectl-bookaccess");
    ensure!(binary.is_file(), "{} is not where it was built", binary.display());
    Ok(binary)
}

/// Where what needs no C library is built.
const STATIC: &str = "target/static";

/// Builds the product and says where it lies.
pub fn product() -> Result<PathBuf> {
    let built = suite::cargo(&["build", "--locked", "--bin", "kubectl-bookaccess"], &[])?;
    ensure!(built.good(), "kubectl-bookaccess cannot be built");
    // cargo puts both programs into the same folder.
    let binary = std::env::current_exe().context("where this program lies")?.with_file_name("kubectl-bookaccess");
    ensure!(binary.is_file(), "{} is not where it was built", binary.display());
    Ok(binary)
}

/// A cluster as `cluster up` makes it when nothing else is said, under another name.
pub fn up_args(name: &str) -> UpArgs {
    UpArgs {
        name: name.to_owned(),
        provider: Provider::default(),
        workers: WORKERS,
        kubernetes_version: None,
        proxy_mode: ProxyMode::default(),
        ec2: false,
        dual_stack: false,
        no_install: false,
        install: false,
    }
}

/// Takes a cluster down, also after an interrupt.
pub fn end(name: &str) -> Result<()> {
    let interrupted = run::forget_interrupt();
    let ended = native::lock(name).and_then(|lock| {
        let ended = provider::down(name, false);
        drop(lock);
        ended
    });
    if interrupted {
        run::remember_interrupt();
    }
    ended.with_context(|| format!("cluster {name} cannot be taken down"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_good_from_bad() {
        let tests = [
            ("a".to_owned(), "ok".to_owned(), Duration::from_millis(1500)),
            ("b".to_owned(), "FAILED".to_owned(), Duration::from_secs(20)),
            ("c".to_owned(), "left out: it needs a kube-proxy".to_owned(), Duration::ZERO),
        ];
        assert_eq!(table(&tests), "✔    1.5 s  a\n✘   20.0 s  b\n–             c (left out: it needs a kube-proxy)\n");
    }

    #[test]
    fn a_second_family_is_asked_for_or_comes_with_its_suite() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let wants = |words: &[&str]| {
            let all = ["x"].iter().chain(words);
            Cli::try_parse_from(all).map(|cli| cli.args.wants_dual_stack()).ok()
        };
        assert_eq!(wants(&[]), Some(false));
        assert_eq!(wants(&["--dual-stack"]), Some(true));
        assert_eq!(wants(&["--suite", "dual-stack"]), Some(true));
        // A cluster that runs is as it is.
        assert_eq!(wants(&["--dual-stack", "--cluster", "a"]), None);
    }
}
