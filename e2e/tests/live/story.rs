//! Scenario 1: the original story, as a person lives it.

use anyhow::{Context, Result, ensure};
use e2e::app::{Bookinfo, NAMESPACE};
use e2e::cluster::Cluster;
use e2e::objects::Objects;
use e2e::page::Seen;
use e2e::scenario::scenario;

use crate::{PAGE, node_port_works, undo};

#[test]
fn s01_cluster_ip_and_the_page_on_a_worker() {
    scenario("s01_cluster_ip_and_the_page_on_a_worker", |stage| {
        let worker = &stage.cluster.worker(0)?.place.name;
        Bookinfo { cluster_ip: true, ..Bookinfo::page().on(worker).with_parts() }.apply(&stage.cluster)?;
        stage.no_page(&[Seen::Refused])?;
        let before = Objects::read(&stage.cluster)?;
        stage.operator.diagnose(&[], 1)?.leads("BA1002")?;

        // What a person reads on the terminal, both streams in their order.
        let seen = stage.operator.shell("(kubectl bookaccess diagnose; kubectl bookaccess fix --yes) 2>&1")?;
        ensure!(seen.code == Some(0), "{}", seen.stdout);
        let page = stage.page(PAGE)?;
        ensure!(page.contains("Book Details") && page.contains("Reviews served by"), "{page}");
        let (pod, node) = (page_pod(&stage.cluster)?, &stage.cluster.control_plane()?.address);
        insta::assert_snapshot!(
            "original_story",
            steady(&seen.stdout.replace(&pod, "productpage-v1-POD").replace(node, "NODE"))
        );

        node_port_works(stage, &stage.operator)?;
        undo(stage, &stage.operator, &before)?;
        stage.no_page(&[Seen::Refused])
    });
}

fn page_pod(cluster: &Cluster) -> Result<String> {
    let pods = cluster.get(&["-n", NAMESPACE, "pods", "-l", "app=productpage"])?;
    Ok(pods["items"][0]["metadata"]["name"].as_str().context("no page pod")?.to_owned())
}

/// Replaces what differs from run to run: identifiers of fixes and forwards, and times taken.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| {
        for command in ["kubectl bookaccess fix --undo ", "kubectl bookaccess forward stop bookinfo-"] {
            if let Some(at) = line.find(command) {
                return format!("{}ID", &line[..at + command.len()]);
            }
        }
        without_amount(&without_amount(line, "초"), "ms)")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `0.4초` becomes `N초`.
fn without_amount(line: &str, unit: &str) -> String {
    let mut pieces: Vec<String> = line.split(unit).map(str::to_owned).collect();
    let last = pieces.len() - 1;
    for piece in &mut pieces[..last] {
        let kept = piece.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if kept < piece.len() {
            piece.replace_range(kept.., "N");
        }
    }
    pieces.join(unit)
}
