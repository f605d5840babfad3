//! The control plane does not act, or does not let.

use std::time::Duration;

use e2e::app::Bookinfo;
use e2e::faults::{daemon, rights, service, slow, workload};
use e2e::matrix::{End, Row};
use e2e::page::Seen;

pub fn rows() -> Vec<Row> {
    let base = || Row {
        line: "Control plane and rights",
        app: |_| Ok(Bookinfo::page().bare()),
        end: End::Unreachable,
        ..Row::default()
    };
    vec![
        Row {
            name: "controller-manager stopped, the pod gone",
            faults: |cluster| {
                let gone = daemon::controller_gone(cluster.control_plane()?, "kube-controller-manager");
                Ok(vec![gone, workload::pods_gone()])
            },
            seen: vec![Seen::NoRoute, Seen::Timeout],
            codes: &["BA1310"],
            ..base()
        },
        Row {
            name: "API server slow",
            faults: |_| Ok(vec![slow::api_server()]),
            by: |stage| Ok(stage.laptop.clone().with("KUBECONFIG", slow::KUBECONFIG)),
            targets: &["--address", "203.0.113.10"],
            codes: &["BA0205"],
            exit: 0,
            // Each request takes two seconds, and some wait for others.
            look: Duration::from_secs(30),
            end: End::Reachable,
            ..base()
        },
        Row {
            name: "a user who may only view",
            faults: |_| Ok(vec![rights::only_view(), service::selector_typo()]),
            by: |stage| Ok(stage.laptop.clone()),
            targets: &["--as", rights::VIEWER, "-n", "bookinfo"],
            codes: &["BA1201"],
            may: &["BA0202"],
            fix_exit: Some(3),
            quick: true,
            ..base()
        },
        Row {
            name: "the credentials have ended",
            faults: |_| Ok(vec![rights::ended()]),
            by: |stage| Ok(stage.laptop.clone().with("KUBECONFIG", rights::ENDED)),
            codes: &["BA0201"],
            exit: 3,
            end: End::Refused,
            ..base()
        },
        Row {
            name: "scheduler stopped",
            faults: |cluster| Ok(vec![daemon::controller_gone(cluster.control_plane()?, "kube-scheduler")]),
            before_app: true,
            gets_ready: false,
            codes: &["BA1311"],
            ..base()
        },
    ]
}
