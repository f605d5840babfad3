//! The Service says something else than is meant.

use e2e::app::Bookinfo;
use e2e::faults::{service, workload};
use e2e::matrix::{End, Row, Shape};
use e2e::page::Seen;
use serde_json::json;

pub fn rows() -> Vec<Row> {
    let base = || Row { line: "Service", app: |_| Ok(Bookinfo::page().bare()), ..Row::default() };
    vec![
        Row {
            name: "ClusterIP",
            app: |_| Ok(Bookinfo { cluster_ip: true, ..Bookinfo::page().bare() }),
            before_app: true,
            codes: &["BA1002"],
            ..base()
        },
        Row {
            name: "deleted",
            faults: |_| Ok(vec![service::deleted()]),
            targets: &["-n", "bookinfo", "productpage"],
            codes: &["BA1001"],
            ..base()
        },
        Row {
            name: "ExternalName",
            faults: |_| {
                let spec = json!({"type": "ExternalName", "externalName": "page.example"});
                Ok(vec![service::made_anew("the Service is an ExternalName", spec)])
            },
            targets: &["-n", "bookinfo", "productpage"],
            codes: &["BA1003"],
            ..base()
        },
        Row {
            name: "headless",
            faults: |_| {
                let spec = json!({"clusterIP": "None", "selector": {"app": "productpage"}, "ports": [{"port": 9080}]});
                Ok(vec![service::made_anew("the Service is headless", spec)])
            },
            targets: &["-n", "bookinfo", "productpage"],
            codes: &["BA1004"],
            ..base()
        },
        Row { name: "other nodePort", faults: |_| Ok(vec![service::other_node_port()]), codes: &["BA1005"], ..base() },
        Row {
            name: "nodePort taken by another Service",
            faults: |_| Ok(vec![service::other_node_port(), service::node_port_taken()]),
            codes: &["BA1007"],
            end: End::Unreachable,
            ..base()
        },
        Row {
            name: "selector typo",
            faults: |_| Ok(vec![service::selector_typo()]),
            codes: &["BA1201"],
            quick: true,
            ..base()
        },
        Row {
            name: "selector too wide, two applications",
            app: |_| Ok(Bookinfo::page().with_parts().bare()),
            faults: |_| Ok(vec![service::selector_too_wide()]),
            seen: vec![Seen::status(404)],
            codes: &["BA1203"],
            ..base()
        },
        Row {
            name: "targetPort number",
            faults: |_| Ok(vec![service::target_port_wrong()]),
            codes: &["BA1101"],
            ..base()
        },
        Row {
            name: "targetPort name",
            faults: |_| Ok(vec![service::target_port_name_unknown()]),
            codes: &["BA1102"],
            ..base()
        },
        Row { name: "protocol UDP", faults: |_| Ok(vec![service::protocol_udp()]), codes: &["BA1104"], ..base() },
        Row {
            name: "two ports, the wrong one on the nodePort",
            faults: |_| Ok(vec![service::other_port_first()]),
            codes: &["BA1105"],
            ..base()
        },
        Row {
            name: "externalTrafficPolicy Local",
            app: |cluster| Ok(Bookinfo::page().bare().on(&cluster.worker(0)?.place.name)),
            faults: |_| Ok(vec![service::local_only()]),
            seen: vec![Seen::Timeout],
            codes: &["BA1301"],
            ..base()
        },
        Row {
            name: "sessionAffinity leads to a replica that refuses",
            app: |_| Ok(Bookinfo::page().bare().spread(2)),
            faults: |_| Ok(vec![service::session_affinity(), workload::one_refuses()]),
            codes: &["BA1303"],
            ..base()
        },
        Row {
            name: "service-proxy-name label",
            faults: |_| Ok(vec![service::service_proxy_name()]),
            codes: &["BA1304"],
            ..base()
        },
        Row {
            name: "wrong IP family",
            faults: |_| {
                let ports = json!([{"port": 9080, "nodePort": 30080}]);
                let spec = json!({"type": "NodePort", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"],
                    "selector": {"app": "productpage"}, "ports": ports});
                Ok(vec![service::made_anew("the Service has IPv6 alone", spec)])
            },
            codes: &["BA1306"],
            shape: Shape::DualStack,
            ..base()
        },
        Row {
            name: "Endpoints by hand, not mirrored",
            faults: |_| Ok(vec![service::endpoints_by_hand()]),
            codes: &["BA1309"],
            ..base()
        },
    ]
}
