//! A cluster that has no kube-proxy at all: what else is broken is named and repaired as elsewhere, and a fallback carries
//! the page.

use e2e::app::Bookinfo;
use e2e::faults::{service, workload};
use e2e::matrix::{End, Row};

/// That there is no kube-proxy: of a DaemonSet that is not there, or as k3s was told.
const NONE: &[&str] = &["BA3001", "BA3016"];

pub fn rows() -> Vec<Row> {
    let base = || Row {
        line: "No kube-proxy at all",
        app: |_| Ok(Bookinfo::page().bare()),
        // The page never was there.
        gets_ready: false,
        may: NONE,
        end: End::LedAround,
        modes: &["none"],
        ..Row::default()
    };
    vec![
        Row { name: "alone", gets_ready: true, before_app: true, codes: NONE, ..base() },
        Row {
            name: "ClusterIP",
            app: |_| Ok(Bookinfo { cluster_ip: true, ..Bookinfo::page().bare() }),
            gets_ready: true,
            before_app: true,
            codes: &["BA1002"],
            ..base()
        },
        Row { name: "selector typo", faults: |_| Ok(vec![service::selector_typo()]), codes: &["BA1201"], ..base() },
        Row {
            name: "targetPort number",
            faults: |_| Ok(vec![service::target_port_wrong()]),
            codes: &["BA1101"],
            ..base()
        },
        Row { name: "replicas 0", faults: |_| Ok(vec![workload::no_replicas()]), codes: &["BA2001"], ..base() },
    ]
}
