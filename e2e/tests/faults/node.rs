//! The node's kernel, its firewall, and the network between the nodes.

use e2e::app::Bookinfo;
use e2e::cluster::Cluster;
use e2e::faults::{daemon, firewall, route, second_card};
use e2e::matrix::{BOTH_MODES, End, Row};
use e2e::page::Seen;

fn on_worker(cluster: &Cluster) -> anyhow::Result<Bookinfo> {
    Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name))
}

pub fn rows() -> Vec<Row> {
    let base = || Row {
        line: "Node and network",
        app: |_| Ok(Bookinfo::page().bare()),
        seen: vec![Seen::Timeout],
        modes: BOTH_MODES,
        ..Row::default()
    };
    let around = || Row { end: End::LedAround, ..base() };
    let remote = || Row { app: on_worker, ..base() };
    vec![
        Row {
            name: "FORWARD drops the pods' network",
            faults: |cluster| Ok(vec![firewall::forward_drops_pods(cluster.control_plane()?)]),
            codes: &["BA4004"],
            ..around()
        },
        Row {
            // In iptables mode kube-proxy accepts what it leads on, and this is harmless.
            name: "FORWARD policy DROP",
            faults: |cluster| Ok(vec![firewall::forward_drops(cluster.control_plane()?)]),
            codes: &["BA4004"],
            modes: &["nftables"],
            ..around()
        },
        Row {
            name: "ip_forward 0",
            faults: |cluster| Ok(vec![firewall::forwarding_off(cluster.control_plane()?)]),
            codes: &["BA4002"],
            quick: true,
            ..around()
        },
        Row {
            name: "raw DROP",
            faults: |cluster| Ok(vec![firewall::raw_drops(cluster.control_plane()?)]),
            codes: &["BA4014"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "REJECT in a table of its own",
            faults: |cluster| Ok(vec![firewall::rejects_in_own_table(cluster.control_plane()?)]),
            seen: vec![Seen::NoRoute],
            codes: &["BA4005"],
            ..around()
        },
        Row {
            name: "kubelet stopped",
            faults: |cluster| Ok(vec![daemon::kubelet_gone(cluster.worker(0)?)]),
            seen: vec![Seen::Refused],
            codes: &["BA4001"],
            ..remote()
        },
        Row {
            name: "node gone",
            faults: |cluster| {
                let gone = cluster.worker(0)?;
                Ok(vec![daemon::kubelet_gone(gone), firewall::cut_off(gone)])
            },
            seen: vec![Seen::Refused],
            codes: &["BA4001"],
            ..remote()
        },
        Row {
            name: "route between the nodes lost",
            faults: |cluster| Ok(vec![route::gone(cluster.control_plane()?, cluster.worker(0)?)]),
            seen: vec![Seen::NoRoute, Seen::Refused, Seen::Timeout],
            codes: &["BA5011"],
            ..remote()
        },
        Row {
            name: "rp_filter, and a second network card",
            faults: |_| Ok(vec![second_card::strict()]),
            targets: &["--address", second_card::ADDRESS],
            codes: &["BA4007"],
            flags: &["--allow", "node"],
            modes: &["iptables"],
            ..base()
        },
        Row {
            // In this mode kube-proxy serves the first card alone, unless it is told otherwise: that is certain, and leads.
            name: "rp_filter, and a second network card",
            faults: |_| Ok(vec![second_card::strict()]),
            targets: &["--address", second_card::ADDRESS],
            codes: &["BA3008"],
            also: &["BA4007"],
            flags: &["--allow", "node", "--allow", "system"],
            modes: &["nftables"],
            ..base()
        },
        Row {
            name: "large packets lost",
            app: |cluster| Ok(on_worker(cluster)?.env("PAD", 4000)),
            faults: |cluster| Ok(vec![firewall::large_lost(cluster.worker(0)?)]),
            codes: &["BA5006"],
            ..remote()
        },
        Row {
            name: "one-way loss",
            faults: |cluster| {
                let (from, to) = (cluster.control_plane()?, cluster.worker(0)?);
                Ok(vec![firewall::one_way(to, &from.address)])
            },
            codes: &["BA5012"],
            ..remote()
        },
        Row {
            name: "the control plane does not reach pods",
            faults: |cluster| Ok(vec![firewall::output_drops_pods(cluster.control_plane()?)]),
            may: &["BA5010"],
            exit: 0,
            end: End::Reachable,
            ..remote()
        },
    ]
}
