//! kube-proxy is away, cannot work, or its rules are not what they should be.

use e2e::app::Bookinfo;
use e2e::cluster::Cluster;
use e2e::faults::{Fault, daemon, kube_proxy, kube_proxy_config, rules, workload};
use e2e::matrix::{BOTH_MODES, End, Row};
use e2e::page::Seen;

/// kube-proxy of the node that is dialled is stuck, and the page moves: its rules lead to a pod that is gone.
fn wedged_then_moved(cluster: &Cluster) -> anyhow::Result<Vec<Fault>> {
    let there = &cluster.worker(1)?.place.name;
    Ok(vec![daemon::kube_proxy_wedged(cluster.control_plane()?), workload::moved_bare_to(there)])
}

pub fn rows() -> Vec<Row> {
    let base = || Row {
        line: "kube-proxy",
        app: |_| Ok(Bookinfo::page().bare()),
        before_app: true,
        modes: BOTH_MODES,
        ..Row::default()
    };
    let system = || Row { flags: &["--allow", "system"], ..base() };
    // Old rules go on working: the fault shows when the page moves.
    let moves = || Row {
        app: |cluster| Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name)),
        before_app: false,
        seen: vec![Seen::NoRoute, Seen::Timeout],
        ..base()
    };
    vec![
        Row {
            name: "absent",
            faults: |_| Ok(vec![kube_proxy::absent()]),
            codes: &["BA3001"],
            end: End::LedAround,
            ..base()
        },
        Row {
            name: "scheduled nowhere",
            faults: |_| Ok(vec![kube_proxy::unscheduled()]),
            codes: &["BA3002"],
            ..system()
        },
        Row {
            name: "not on one node",
            faults: |cluster| Ok(vec![kube_proxy::excluded_from(&cluster.control_plane()?.place.name)]),
            codes: &["BA3002"],
            quick: true,
            ..system()
        },
        Row {
            name: "crash loop by bad configuration",
            faults: |_| Ok(vec![kube_proxy_config::bad_mode()]),
            codes: &["BA3003"],
            ..system()
        },
        Row {
            name: "rights lost",
            faults: |_| Ok(vec![kube_proxy_config::rights_gone()]),
            codes: &["BA3005"],
            ..system()
        },
        Row {
            name: "wrong API server address",
            faults: |_| Ok(vec![kube_proxy_config::wrong_server()]),
            codes: &["BA3006"],
            ..system()
        },
        Row {
            name: "nodePortAddresses excludes the address",
            faults: |_| Ok(vec![kube_proxy_config::other_addresses()]),
            codes: &["BA3008"],
            ..system()
        },
        Row {
            name: "gone, its rules still good",
            faults: |_| Ok(vec![kube_proxy::unscheduled()]),
            before_app: false,
            may: &["BA3001", "BA3002"],
            exit: 0,
            end: End::Reachable,
            ..base()
        },
        Row {
            name: "gone, the page moved",
            faults: |cluster| {
                let (here, there) = (&cluster.control_plane()?.place.name, &cluster.worker(1)?.place.name);
                Ok(vec![kube_proxy::excluded_from(here), workload::moved_bare_to(there)])
            },
            codes: &["BA3019"],
            end: End::LedAround,
            ..moves()
        },
        Row {
            name: "gone, the old pod's address answers for another application",
            faults: |cluster| {
                let (here, old) = (&cluster.control_plane()?.place.name, &cluster.worker(0)?.place.name);
                let there = &cluster.worker(1)?.place.name;
                let address = workload::address(cluster)?;
                Ok(vec![
                    kube_proxy::excluded_from(here),
                    workload::moved_bare_to(there),
                    workload::stranger_gets(address, old),
                ])
            },
            seen: vec![Seen::status(404)],
            codes: &["BA3022"],
            end: End::LedAround,
            ..moves()
        },
        Row {
            name: "flushed",
            faults: |cluster| Ok(vec![rules::flushed_for_good_on(&cluster.control_plane()?.place.name)]),
            before_app: false,
            codes: &["BA3020"],
            ..system()
        },
        Row {
            name: "rules of iptables-legacy beside its own",
            faults: |cluster| Ok(vec![rules::legacy_on(&cluster.control_plane()?.place.name)]),
            before_app: false,
            seen: vec![Seen::NoRoute, Seen::Timeout],
            codes: &["BA3011"],
            end: End::LedAround,
            ..base()
        },
        Row {
            name: "wedged, the page moved",
            faults: wedged_then_moved,
            codes: &["BA3021"],
            flags: &["--allow", "system"],
            ..moves()
        },
        Row {
            // Nobody reads the node's rules: what kube-proxy says within its own node tells.
            name: "wedged, the page moved, seen from a laptop",
            faults: wedged_then_moved,
            by: |stage| Ok(stage.laptop.clone()),
            codes: &["BA3021"],
            flags: &["--allow", "system"],
            modes: &["iptables"],
            ..moves()
        },
    ]
}
