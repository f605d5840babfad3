//! Two faults at once that hide each other: both are named, the first break on the path leads.

use e2e::app::Bookinfo;
use e2e::faults::{daemon, firewall, kube_proxy, service, workload};
use e2e::matrix::{End, Row};
use e2e::page::Seen;

pub fn rows() -> Vec<Row> {
    let base = || Row { line: "Two at once", app: |_| Ok(Bookinfo::page().bare()), ..Row::default() };
    vec![
        Row {
            name: "ClusterIP, and kube-proxy scheduled nowhere",
            app: |_| Ok(Bookinfo { cluster_ip: true, ..Bookinfo::page().bare() }),
            faults: |_| Ok(vec![kube_proxy::unscheduled()]),
            before_app: true,
            codes: &["BA1002"],
            also: &["BA3002"],
            flags: &["--allow", "system"],
            quick: true,
            ..base()
        },
        Row {
            name: "selector typo, and readiness failing",
            app: |_| Ok(Bookinfo::page()),
            faults: |_| Ok(vec![service::selector_typo(), workload::never_ready()]),
            codes: &["BA1201"],
            also: &["BA2101"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "FORWARD drops the pods' network, and Local",
            app: |cluster| Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name)),
            faults: |cluster| Ok(vec![firewall::forward_drops_pods(cluster.control_plane()?), service::local_only()]),
            seen: vec![Seen::Timeout],
            codes: &["BA1301", "BA4004"],
            end: End::LedAround,
            ..base()
        },
        Row {
            name: "stale rules, and raw DROP",
            app: |cluster| Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name)),
            faults: |cluster| {
                let here = cluster.control_plane()?;
                let moved = workload::moved_bare_to(&cluster.worker(1)?.place.name);
                Ok(vec![kube_proxy::excluded_from(&here.place.name), moved, firewall::raw_drops(here)])
            },
            seen: vec![Seen::Timeout],
            codes: &["BA4014"],
            also: &["BA3019"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "ClusterIP, and the scheduler stopped",
            app: |_| Ok(Bookinfo { cluster_ip: true, ..Bookinfo::page().bare() }),
            faults: |cluster| Ok(vec![daemon::controller_gone(cluster.control_plane()?, "kube-scheduler")]),
            before_app: true,
            gets_ready: false,
            codes: &["BA1002"],
            also: &["BA1311"],
            end: End::Unreachable,
            ..base()
        },
    ]
}
