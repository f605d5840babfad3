//! Scenario 1: the original story, as a person lives it.

use e2e::app::Bookinfo;
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
        let ended = stage.operator.must(&["fix", "--yes"], 0)?;
        let page = stage.page(PAGE)?;
        anyhow::ensure!(page.contains("Book Details") && page.contains("Reviews served by"), "{page}");
        insta::assert_snapshot!("original_story", steady(&format!("{}\n--- stderr\n{}", ended.stdout, ended.stderr)));
        node_port_works(stage, &stage.operator)?;
        undo(stage, &stage.operator, &before)?;
        stage.no_page(&[Seen::Refused])
    });
}

/// Replaces what differs from run to run: numbers with a unit of time, pods' suffixes, identifiers.
fn steady(text: &str) -> String {
    let lines: Vec<_> =
        text.lines().map(|line| line.split(' ').map(steady_word).collect::<Vec<_>>().join(" ")).collect();
    lines.join("\n")
}

fn steady_word(word: &str) -> String {
    if let Some((before, rest)) = word.split_once('(')
        && let Some((number, after)) = rest.split_once("초)")
        && number.parse::<f64>().is_ok()
    {
        return format!("{before}(N초){after}");
    }
    // A fix's id, and the end of a forward's that stands for the cluster.
    let is_id = word.len() == 10
        && word.bytes().all(|b| b.is_ascii_alphanumeric())
        && word.starts_with(|c: char| c.is_ascii_digit());
    match word.strip_prefix("bookinfo-productpage-30080-") {
        Some(_) => "bookinfo-productpage-30080-CLUSTER".to_owned(),
        None if is_id => "FIX".to_owned(),
        None => word.to_owned(),
    }
}
