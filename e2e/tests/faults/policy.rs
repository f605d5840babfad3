//! Somebody says no on purpose.

use e2e::app::{Bookinfo, CONTAINER};
use e2e::faults::policy;
use e2e::matrix::{End, Row};
use e2e::page::Seen;
use serde_json::json;

/// A pod as Istio's injection makes it: a sidecar of that name beside the application.
fn meshed() -> Bookinfo {
    let container = CONTAINER.trim_end_matches('0').to_owned() + "-";
    let sidecar = json!({
        "name": "istio-proxy", "image": "bookaccess.local/standin:1", "imagePullPolicy": "Never",
        "env": [{"name": "ROLE", "value": "ratings"}, {"name": "LISTEN", "value": "0.0.0.0:15021"}],
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom"}],
    });
    Bookinfo::page().bare().edit(json!({"op": "add", "path": container, "value": sidecar}))
}

pub fn rows() -> Vec<Row> {
    let base = || Row { line: "Policy", before_app: true, end: End::Unreachable, ..Row::default() };
    vec![
        Row {
            name: "NetworkPolicy denies",
            app: |cluster| Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name)),
            faults: |_| Ok(vec![policy::denies_all_enforced()]),
            before_app: false,
            seen: vec![Seen::Timeout],
            codes: &["BA7001"],
            flags: &["--allow", "policy"],
            end: End::Repaired,
            quick: true,
            ..base()
        },
        Row {
            name: "a mesh resets plain HTTP",
            app: |_| Ok(meshed().env("FAULT", "reset")),
            seen: vec![Seen::Reset],
            codes: &["BA7004"],
            ..base()
        },
        Row {
            name: "a mesh forbids",
            app: |_| Ok(meshed().env("FAULT", "forbidden")),
            seen: vec![Seen::status(403)],
            codes: &["BA7005"],
            ..base()
        },
    ]
}
