//! Between the browser and the node.

use e2e::app::Bookinfo;
use e2e::faults::security_group;
use e2e::matrix::{End, Row};
use e2e::page::Seen;

pub fn rows() -> Vec<Row> {
    let base = || Row {
        line: "Edge",
        app: |_| Ok(Bookinfo::page().bare()),
        by: |stage| Ok(stage.laptop.clone()),
        seen: vec![Seen::Timeout],
        end: End::Unreachable,
        ..Row::default()
    };
    vec![
        Row {
            name: "dropped before the public address",
            faults: |_| Ok(vec![security_group::drops(30080)]),
            codes: &["BA6001"],
            fix_exit: Some(6),
            quick: true,
            ..base()
        },
        Row {
            name: "a stale public address",
            targets: &["--address", "203.0.113.99"],
            codes: &["BA0101"],
            fix_exit: Some(6),
            end: End::Reachable,
            ..base()
        },
        Row {
            name: "https on the http port",
            targets: &["--address", "https://203.0.113.10:30080/productpage"],
            codes: &["BA0103"],
            exit: 0,
            end: End::Reachable,
            ..base()
        },
        Row {
            name: "a proxy in the environment that leads nowhere",
            // Nobody is behind a closed port of the way's own gateway.
            by: |stage| Ok(stage.laptop.clone().with("http_proxy", "http://198.51.100.1:3128")),
            codes: &["BA0102"],
            exit: 0,
            end: End::Reachable,
            ..base()
        },
    ]
}
