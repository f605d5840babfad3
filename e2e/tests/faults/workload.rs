//! The page's pods are not there, not ready, or answer something else.

use e2e::app::{Bookinfo, CONTAINER};
use e2e::faults::workload;
use e2e::matrix::{End, Row};
use e2e::page::Seen;
use serde_json::{Value, json};

/// An operation on the pod's template.
fn set(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": format!("/spec/template/spec/{path}"), "value": value})
}

fn container(field: &str, value: Value) -> Value {
    json!({"op": "add", "path": format!("{CONTAINER}/{field}"), "value": value})
}

pub fn rows() -> Vec<Row> {
    let base = || Row { line: "Workload", before_app: true, gets_ready: false, ..Row::default() };
    let pending = || Row { codes: &["BA2002"], end: End::Unreachable, ..base() };
    let around = || Row { gets_ready: true, end: End::LedAround, ..base() };
    vec![
        Row {
            name: "replicas 0",
            app: |_| Ok(Bookinfo::page().bare()),
            faults: |_| Ok(vec![workload::no_replicas()]),
            before_app: false,
            gets_ready: true,
            codes: &["BA2001"],
            quick: true,
            ..base()
        },
        Row {
            name: "Pending: resources",
            app: |_| {
                let wants = json!({"requests": {"cpu": "500"}, "limits": {"cpu": "500"}});
                Ok(Bookinfo::page().bare().edit(container("resources", wants)))
            },
            ..pending()
        },
        Row {
            name: "Pending: taint",
            app: |_| Ok(Bookinfo::page().bare().edit(set("tolerations", json!([])))),
            ..pending()
        },
        Row {
            name: "Pending: nodeSelector",
            app: |_| Ok(Bookinfo::page().bare().edit(set("nodeSelector", json!({"disk": "ssd"})))),
            end: End::Repaired,
            ..pending()
        },
        Row {
            name: "Pending: cordon",
            app: |cluster| Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name)),
            faults: |cluster| Ok(vec![workload::cordoned(&cluster.worker(0)?.place.name)]),
            flags: &["--allow", "system"],
            end: End::Repaired,
            ..pending()
        },
        Row {
            name: "image missing",
            app: |_| Ok(Bookinfo::page().bare().edit(container("image", json!("bookaccess.local/missing:1")))),
            codes: &["BA2003"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "crash loop",
            app: |_| Ok(Bookinfo::page().bare().env("FAULT", "none-of-them")),
            codes: &["BA2004"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "readiness failing",
            app: |_| Ok(Bookinfo::page().edit(container("readinessProbe/httpGet/path", json!("/nowhere")))),
            codes: &["BA2101"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "listener on loopback",
            app: |_| Ok(Bookinfo::page().on_loopback()),
            codes: &["BA2301"],
            ..around()
        },
        Row {
            name: "listener on IPv6 alone",
            app: |_| Ok(Bookinfo::page().bare().env("V6ONLY", 1)),
            codes: &["BA2303"],
            ..around()
        },
        Row {
            name: "wrong port in the container",
            app: |_| Ok(Bookinfo::page().bare().env("LISTEN", "0.0.0.0:9081")),
            codes: &["BA1101", "BA2302"],
            end: End::Repaired,
            ..around()
        },
        Row {
            name: "one of three replicas bad",
            app: |_| Ok(Bookinfo::page().bare().spread(3)),
            faults: |_| Ok(vec![workload::one_refuses()]),
            before_app: false,
            codes: &["BA2306"],
            ..around()
        },
        Row {
            name: "slow start",
            app: |_| Ok(Bookinfo::page().bare().slow_by(25_000)),
            codes: &["BA2103"],
            end: End::Awaited,
            ..around()
        },
        Row {
            name: "TLS on the port",
            app: |_| Ok(Bookinfo::page().bare().env("FAULT", "tls")),
            seen: vec![Seen::status(400)],
            codes: &["BA2304"],
            end: End::Unreachable,
            ..around()
        },
        Row {
            name: "HTTP 500",
            app: |_| Ok(Bookinfo::page().env("FAULT", "error")),
            seen: vec![Seen::status(500)],
            codes: &["BA2305"],
            exit: 0,
            end: End::OwnError,
            ..around()
        },
    ]
}
