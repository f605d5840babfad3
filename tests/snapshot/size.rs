//! A judgement costs as much as the cluster is large, and no more.

use std::time::Duration;

use bookaccess::check;
use bookaccess::facts::Facts;
use bookaccess::model::Snapshot;
use bookaccess::observe::redact::redact;
use bookaccess::plan::{self, Policy};
use bookaccess::render;
use e2e::size::Size;

const SMALL: Size = Size { nodes: 100, services: 400, pods: 4_000, crowd: 20 };

fn made(size: Size) -> Snapshot {
    let mut text = Vec::new();
    size.write(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// From the Snapshot to what is written, as `diagnose --from` does it.
fn judge(snapshot: &Snapshot) -> usize {
    let facts = Facts::derive(snapshot);
    let report = check::run(&facts);
    let plan = plan::plan(&facts, &report.findings, &Policy { fallback: true, ..Policy::default() });
    let view = render::Diagnosis::of(&facts, &report, plan);
    view.findings.len()
}

/// The time that this thread has had on a CPU: what others do on the machine does not count (proc(5), schedstat).
fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default())
}

/// The least of three, since only more can be in the way.
fn cost(snapshot: &Snapshot) -> Duration {
    let once = || {
        let start = worked();
        assert!(judge(snapshot) > 0);
        worked() - start
    };
    [once(), once(), once()].into_iter().min().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn four_times_the_cluster_costs_about_four_times_as_much() {
    // Namespaces as they are, and all in one: what is searched for within a namespace shows there.
    for crowd in [20, usize::MAX / 1_000_000] {
        let small = Size { crowd, ..SMALL };
        let (once, fourfold) = (cost(&made(small)), cost(&made(small.times(4))));
        let ratio = fourfold.as_secs_f64() / once.as_secs_f64();
        assert!(ratio < 8.0, "{once:?}, and {fourfold:?} for four times as much: {ratio:.1}");
    }
}

#[test]
fn every_broken_target_is_named_and_no_other() {
    let snapshot = made(SMALL.times(8));
    let report = check::run(&Facts::derive(&snapshot));
    let errors = report.findings.iter().filter(|f| f.severity == bookaccess::model::Severity::Error);
    let named: std::collections::BTreeSet<&str> = errors.map(|f| f.target.as_str()).collect();
    assert_eq!(named.len(), SMALL.times(8).broken());
    assert!(report.findings.iter().all(|f| named.contains(f.target.as_str())), "{:?}", report.findings);
}

#[test]
fn the_large_file_is_what_save_would_have_written() {
    let snapshot = made(SMALL);
    assert_eq!(redact(snapshot.clone()), snapshot);
}
