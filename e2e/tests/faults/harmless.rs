//! What looks like a fault and is none: nothing may be named, nothing done.

use e2e::app::{Bookinfo, CONTAINER};
use e2e::cluster::Cluster;
use e2e::faults::{Fault, daemon, firewall, policy, workload};
use e2e::matrix::{BOTH_MODES, End, Row, Shape};
use serde_json::{Value, json};

fn replace(field: &str, value: Value) -> Value {
    json!([{"op": "add", "path": format!("{CONTAINER}/{field}"), "value": value}])
}

pub fn rows() -> Vec<Row> {
    let base = || Row {
        line: "Harmless",
        app: |_| Ok(Bookinfo::page()),
        exit: 0,
        end: End::Reachable,
        modes: BOTH_MODES,
        ..Row::default()
    };
    vec![
        Row { name: "nothing", quick: true, ..base() },
        Row {
            name: "INPUT DROP of the nodePort",
            faults: |cluster| Ok(vec![firewall::input_drops_port(cluster.control_plane()?)]),
            quick: true,
            ..base()
        },
        Row {
            // In nftables mode nothing accepts before it: a fault, with a row of its own.
            name: "FORWARD policy DROP",
            faults: |cluster: &Cluster| -> anyhow::Result<Vec<Fault>> {
                Ok(vec![firewall::forward_drops(cluster.control_plane()?)])
            },
            may: &["BA4004"],
            modes: &["iptables"],
            ..base()
        },
        Row { name: "NetworkPolicy that nobody enforces", faults: |_| Ok(vec![policy::denies_all()]), ..base() },
        Row {
            name: "rolling update with a bad readiness probe",
            faults: |_| {
                let probe = replace("readinessProbe/httpGet/path", json!("/nowhere"));
                Ok(vec![workload::rolled_into("the new revision never gets ready", probe)])
            },
            may: &["BA2101"],
            ..base()
        },
        Row {
            name: "rolling update with a missing image",
            faults: |_| {
                let image = replace("image", json!("bookaccess.local/missing:1"));
                Ok(vec![workload::rolled_into("the new revision's image is missing", image)])
            },
            may: &["BA2003"],
            ..base()
        },
        Row {
            name: "two of five nodes down",
            faults: |cluster| {
                let down = [cluster.worker(2)?, cluster.worker(3)?];
                Ok(down.into_iter().flat_map(|node| [daemon::kubelet_gone(node), firewall::cut_off(node)]).collect())
            },
            shape: Shape::FiveNodes,
            ..base()
        },
    ]
}
