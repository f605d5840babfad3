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
        read_by_a_person(&stage.cluster, &seen.stdout)?;

        node_port_works(stage, &stage.operator)?;
        undo(stage, &stage.operator, &before)?;
        stage.no_page(&[Seen::Refused])
    });
}

/// Word for word on a native cluster. Elsewhere a node's name is longer, which breaks lines in other places, and may have
/// systemd, which adds a hint.
fn read_by_a_person(cluster: &Cluster, seen: &str) -> Result<()> {
    let (pod, node) = (page_pod(cluster)?, &cluster.control_plane()?.address);
    if cluster.provider == "native" {
        insta::assert_snapshot!(
            "original_story",
            steady(&seen.replace(&pod, "productpage-v1-POD").replace(node, "NODE"))
        );
        return Ok(());
    }
    let sentences =
        ["오류[BA1002]", "kubectl bookaccess fix --undo", "접속됩니다. http://203.0.113.10:30080/productpage"];
    for words in sentences.into_iter().chain([pod.as_str(), node]) {
        ensure!(seen.contains(words), "no {words:?} in\n{seen}");
    }
    Ok(())
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
