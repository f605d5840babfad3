//! `cargo xtask demo`: the whole story on a fresh cluster, each step one line with its time.

pub mod load;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::app::{self, Bookinfo};
use e2e::cluster::Cluster;
use e2e::faults::{kube_proxy, workload};
use e2e::load::{Client, Order, PATIENCE};
use e2e::objects::Objects;
use e2e::page::{self, Seen};
use e2e::plugin::Plugin;

use crate::provider::native;
use crate::provider::native::plan::Places;
use crate::{cluster, e2e as live, readme, run};

/// What the steps' lines begin with; the READMEs show all of them.
pub const STEPS: [&str; 12] = [
    "kubectl-bookaccess built",
    "cluster up",
    "kube-proxy scheduled nowhere",
    "Bookinfo applied",
    "browser: ",
    "kubectl bookaccess diagnose",
    "kubectl bookaccess fix --yes",
    "browser: ",
    "rolling update and back under 50 new connections a second",
    "kubectl bookaccess status",
    "kubectl bookaccess fix --undo --yes",
    "cluster down",
];

/// Name of the demo's cluster.
const NAME: &str = "demo";
/// New connections a second while the page is rolled out anew.
const RATE: u32 = 50;

#[derive(clap::Args)]
pub struct Args {
    /// Leave the cluster running and say how to use it
    #[arg(long)]
    keep: bool,
    /// Write what was seen into the READMEs
    #[arg(long, conflicts_with = "keep")]
    record: bool,
}

/// What is shown, step by step.
struct Story {
    shown: Vec<String>,
    steps: usize,
}

impl Story {
    /// Does a step and shows its line: how it begins is fixed, how it ends the step says.
    fn step<T>(&mut self, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        let beginning = STEPS.get(self.steps).context("more steps than are listed")?;
        let start = Instant::now();
        let done = run::check().and_then(|()| work());
        match done {
            Ok((value, ending)) => {
                self.steps += 1;
                self.show(readme::step_line(start.elapsed(), &format!("{beginning}{ending}")));
                Ok(value)
            }
            Err(error) => {
                let line = readme::step_line(start.elapsed(), beginning).replacen('✔', "✘", 1);
                self.show(line);
                Err(error)
            }
        }
    }

    fn show(&mut self, line: String) {
        println!("{line}");
        self.shown.push(line);
    }

    /// The output of a command, as it was printed, set off.
    fn output(&mut self, text: &str) {
        for line in text.trim_end().lines() {
            self.show(if line.is_empty() { String::new() } else { format!("    {line}") });
        }
    }
}

/// Tells the story; the cluster is taken down however it ends.
pub fn run(args: &Args) -> Result<ExitCode> {
    native::require_machine()?;
    run::catch_interrupts()?;
    let start = Instant::now();
    let mut story = Story { shown: vec!["$ cargo xtask demo".to_owned()], steps: 0 };
    let told = tell(&mut story);
    if args.keep {
        told?;
        print!("{}", how_to_use());
        return Ok(ExitCode::SUCCESS);
    }
    // What went wrong in the story comes first.
    let ended = match told {
        Ok(()) => story.step(|| Ok((live::end(NAME)?, ": nothing of it is left".to_owned()))),
        Err(_) => live::end(NAME),
    };
    told?;
    ended?;
    story.show(format!("All of it: {:.1} s", start.elapsed().as_secs_f64()));
    if args.record {
        readme::record("demo", &story.shown.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(story: &mut Story) -> Result<()> {
    let binary = story.step(|| Ok((live::product()?, String::new())))?;
    let cluster = story.step(up)?;
    story
        .step(|| Ok(((kube_proxy::unscheduled().inject)(&cluster)?, ", as a leftover nodeSelector does".to_owned())))?;
    story.step(|| {
        Bookinfo::page().with_parts().apply(&cluster)?;
        Ok(((), ": six Deployments, productpage with nodePort 30080 on the control plane".to_owned()))
    })?;
    let before = Objects::read(&cluster)?;
    let plugin = Plugin::operator(&cluster, &binary)?;
    let url = format!("http://{}:{}/productpage", cluster.public_address, app::PORT);
    let browser = |want_page: bool| {
        let seen = if want_page {
            let limit = Duration::from_secs(10);
            Seen::Answer { status: 200, body: page::expect_page(&cluster.client, &url, limit)? }
        } else {
            page::fetch(&cluster.client, &url, Duration::from_secs(5))?
        };
        ensure!(seen.is_page() == want_page, "{url}: {}", seen.brief());
        Ok(((), format!("{url}: {}", in_words(&seen))))
    };

    story.step(|| browser(false))?;
    command(story, &plugin, &["diagnose"], 1)?;
    command(story, &plugin, &["fix", "--yes"], 0)?;
    story.step(|| browser(true))?;
    story.step(|| roll_out(&cluster))?;
    command(story, &plugin, &["status"], 0)?;
    let undone = story.step(|| {
        let ended = plugin.must(&["fix", "--undo", "--yes"], 0)?;
        before.must_equal(&Objects::read(&cluster)?)?;
        let seen = page::fetch(&cluster.client, &url, Duration::from_secs(5))?;
        ensure!(!seen.is_page(), "the page answers although the fix is undone");
        Ok((ended, format!(": every object as before; browser: {}", in_words(&seen))))
    })?;
    story.output(&undone.stderr);
    story.output(&undone.stdout);
    Ok(())
}

fn up() -> Result<(Cluster, String)> {
    cluster::up(&live::up_args(NAME))?;
    let descriptor = Places::new(NAME).descriptor();
    let cluster = Cluster::load(descriptor.to_str().context("a path that is not UTF-8")?)?;
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.place.name.as_str()).collect();
    let words = format!(
        ": Kubernetes {}, nodes {}, kube-proxy in {} mode, a browser's machine outside",
        cluster.kubernetes_version,
        nodes.join(", "),
        cluster.proxy_mode
    );
    Ok((cluster, words))
}

/// A step that is a command of the plugin on the control plane, and what it printed.
fn command(story: &mut Story, plugin: &Plugin, args: &[&str], code: i32) -> Result<()> {
    let ended = story.step(|| Ok((plugin.must(args, code)?, format!(": exit code {code}"))))?;
    story.output(&ended.stderr);
    story.output(&ended.stdout);
    Ok(())
}

fn in_words(seen: &Seen) -> String {
    match seen {
        Seen::Answer { status, body } => {
            let title = body.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
            let parts = ["Book Details", "Book Reviews"].into_iter().filter(|part| body.contains(part));
            let parts: Vec<_> = parts.collect();
            let with = if parts.is_empty() { String::new() } else { format!(" with {}", parts.join(" and ")) };
            format!("HTTP {status}, {}{with}", title.map_or("no title", |(title, _)| title))
        }
        Seen::Refused => "connection refused".to_owned(),
        Seen::NoRoute => "no route to host".to_owned(),
        Seen::Timeout => "no answer".to_owned(),
        Seen::Reset => "connection reset".to_owned(),
        Seen::Other(words) => words.clone(),
    }
}

/// Replaces the page's pod, and takes that back, while the client opens new connections all the time; none may fail.
fn roll_out(cluster: &Cluster) -> Result<((), String)> {
    let program = e2e::plugin::put(&cluster.client, &std::env::current_exe()?, "xtask")?;
    let order = Order {
        rate: RATE,
        address: format!("{}:{}", cluster.public_address, app::PORT).parse()?,
        path: "/productpage".to_owned(),
        marker: page::TITLE.to_owned(),
        patience: PATIENCE,
    };
    let load = Client::start(&cluster.client, &program, &order)?;
    workload::roll(cluster, "restart")?;
    // `restart` leaves its mark in the template; with that gone the objects are again those of before.
    workload::roll(cluster, "undo")?;
    let count = load.end()?;
    let said = format!(": {} answered, {} failed, slowest {} ms", count.answered, count.failed, count.slowest);
    ensure!(count.failed == 0, "rolling update{said}\n{}", count.failures_in_words());
    Ok(((), said))
}

fn how_to_use() -> String {
    format!(
        "The cluster is left running:
  cargo xtask cluster shell --name {NAME} cp1       a root shell on the control plane
  cargo xtask cluster shell --name {NAME} client    the browser's machine
  cargo xtask cluster down --name {NAME}            the end of it\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_browser_sees_is_said_in_words() {
        let page = |body: &str| in_words(&Seen::Answer { status: 200, body: body.to_owned() });
        assert_eq!(page("<title>Simple Bookstore App</title>"), "HTTP 200, Simple Bookstore App");
        assert_eq!(
            page("<title>A</title> Book Reviews Book Details"),
            "HTTP 200, A with Book Details and Book Reviews"
        );
        assert_eq!(in_words(&Seen::Refused), "connection refused");
    }

    #[test]
    fn a_step_is_shown_with_its_time_and_a_failed_one_as_failed() {
        let mut story = Story { shown: vec![], steps: 1 };
        let ok: Result<()> = story.step(|| Ok(((), ": x".to_owned())));
        let failed: Result<()> = story.step(|| Err(anyhow::anyhow!("no")));
        story.output("a\n\n b\n");
        assert!(ok.is_ok() && failed.is_err());
        assert_eq!(readme::step(&story.shown[0]).map(|(_, words)| words), Some("cluster up: x"));
        assert!(story.shown[1].starts_with("✘ ") && story.shown[1].ends_with(STEPS[2]), "{:?}", story.shown);
        assert_eq!(story.shown[2..], ["    a", "", "     b"]);
    }
}
