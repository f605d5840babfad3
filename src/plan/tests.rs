//! Plans for the checks' own fixtures: what is done, from where, under which grants.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::actions::kebab;
use super::simulate::{simulate, take_back};
use super::{Policy, patch, plan};
use crate::check;
use crate::facts::Facts;
use crate::model::{Act, ActionName, Allow, Code, Confidence, Plan, Severity, Snapshot};

pub(super) fn fixture(stem: &str) -> Value {
    fixtures()[stem].clone()
}

/// All fixtures by name, read once.
pub(crate) fn fixtures() -> &'static BTreeMap<String, Value> {
    static READ: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/check/testdata");
        let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let yaml = files.filter(|p| p.extension().is_some_and(|e| e == "yaml"));
        yaml.map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            (stem, serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap())
        })
        .collect()
    });
    &READ
}

fn snapshot(value: &Value) -> Snapshot {
    serde_json::from_value(value.clone()).unwrap()
}

pub(super) fn planned(value: &Value, policy: &Policy) -> Plan {
    let snapshot = snapshot(value);
    let facts = Facts::derive(&snapshot);
    plan(&facts, &check::run(&facts).findings, policy)
}

pub(crate) fn consent(allow: &[Allow]) -> Policy {
    Policy { allow: allow.iter().copied().collect(), fallback: true, ..Policy::default() }
}

/// As the same user would stand with a laptop.
fn from_laptop(mut value: Value) -> Value {
    value["stand"] = json!({"root": false, "server": value["stand"]["server"]});
    let value_object = value.as_object_mut().unwrap();
    value_object.remove("host");
    let probes = value_object["probes"].as_array_mut().unwrap();
    probes.retain(|p| p["vantage"] != "outsider" && p["vantage"] != "nodeToPod");
    for probe in probes.iter_mut().filter(|p| p["vantage"] == "client") {
        probe["host"] = json!("203.0.113.10");
        for key in ["status", "right"] {
            probe.as_object_mut().unwrap().remove(key);
        }
        probe["outcome"] = json!("refused");
    }
    value
}

pub(super) fn said(plan: &Plan) -> String {
    let steps: Vec<String> = plan.steps.iter().map(|s| kebab(s.name)).collect();
    let withheld: Vec<String> = plan
        .withheld
        .iter()
        .map(|w| match w.needs {
            Some(needs) => format!("{}({})", kebab(w.step.name), json!(needs).as_str().unwrap()),
            None => kebab(w.step.name),
        })
        .collect();
    format!("{} | {}", steps.join(" "), withheld.join(" "))
}

/// Fixture, grants: steps | withheld.
#[test]
fn as_root_on_the_node_that_the_address_leads_to() {
    let system = &[Allow::System][..];
    let policy = &[Allow::Policy][..];
    let node = &[Allow::Node][..];
    let table: [(&str, &[Allow], &str); 66] = [
        ("healthy_kubeadm", &[], " | "),
        ("ba1001", &[], "create-service open-forward | "),
        ("ba1002", &[], "open-forward service-node-port | "),
        ("ba1002_note", &[], " | "),
        ("ba1003", &[], "sibling-service | "),
        ("ba1004", &[], "open-forward sibling-service | "),
        ("ba1101", &[], "target-port open-forward | "),
        ("ba1102", &[], "target-port open-forward | "),
        ("ba1104", &[], "protocol open-forward | "),
        ("ba1105", &[], "exchange-node-ports open-forward | "),
        ("ba1201", &[], "selector open-forward | "),
        ("ba1301", &[], "open-forward traffic-policy | "),
        ("ba1303", &[], "open-forward session-affinity | "),
        ("ba1304", &[], "open-forward service-proxy-name | "),
        ("ba1306", &[], "open-forward | "),
        ("ba1307", &[], "open-forward | source-ranges"),
        ("ba1308", &[], "open-forward sibling-service | "),
        ("ba1309", &[], "mirror-endpoints open-forward | "),
        ("ba2001", &[], "scale open-forward | "),
        ("ba2002", &[], " | mend-workload"),
        ("ba2003", &[], " | mend-workload"),
        ("ba2301", &[], "open-forward | mend-workload"),
        ("ba2302", &[], " | mend-workload"),
        ("ba2303", &[], "open-forward | mend-workload"),
        ("ba3001", &[], "open-forward | install-kube-proxy"),
        ("ba3002", &[], "open-forward open-forward | schedule-kube-proxy(system)"),
        ("ba3002", system, "open-forward open-forward schedule-kube-proxy | "),
        ("ba3002_warning", system, " | "),
        ("ba3003", system, "open-forward restart-kube-proxy | "),
        ("ba3004", &[], "open-forward | configure-kube-proxy(system)"),
        ("ba3004", system, "open-forward configure-kube-proxy restart-kube-proxy | "),
        ("ba3005", &[], "open-forward | bind-kube-proxy(system)"),
        ("ba3005", system, "open-forward bind-kube-proxy | "),
        ("ba3005_crash_loop", system, "open-forward bind-kube-proxy | "),
        ("ba3006", &[], "open-forward | configure-kube-proxy(system) restart-kube-proxy(system)"),
        ("ba3006", system, "open-forward configure-kube-proxy restart-kube-proxy | "),
        ("ba3008", &[], "open-forward | configure-kube-proxy(system)"),
        ("ba3008", system, "open-forward configure-kube-proxy restart-kube-proxy | "),
        ("ba3008_primary", system, "configure-kube-proxy restart-kube-proxy | "),
        ("ba3019", &[], "open-forward | schedule-kube-proxy(system)"),
        ("ba3020", &[], "open-forward wake-kube-proxy | "),
        ("ba3020_nftables", &[], "open-forward | restart-kube-proxy(system)"),
        ("ba3020_nftables", system, "open-forward restart-kube-proxy | "),
        ("ba3021", &[], "open-forward | restart-kube-proxy(system)"),
        ("ba3021", system, "open-forward restart-kube-proxy | "),
        ("ba3022", &[], "open-forward | schedule-kube-proxy(system)"),
        ("ba4001", &[], "pin-to-control-plane open-forward | mend-node"),
        ("ba4002", &[], "open-forward | set-kernel(node)"),
        ("ba4002", node, "open-forward set-kernel | "),
        ("ba4004", &[], "open-forward | accept-on-node(node)"),
        ("ba4004", node, "open-forward accept-on-node | "),
        ("ba4004_unseen", node, "open-forward | "),
        ("ba4005", node, "open-forward accept-on-node | "),
        ("ba4007", node, "open-forward set-kernel | "),
        ("ba4008", node, "open-forward | raise-conntrack"),
        ("ba4014", &[], " | accept-on-node(node)"),
        ("ba4014", node, "accept-on-node open-forward | "),
        ("ba5006", node, "open-forward clamp-segments | "),
        ("ba5012", node, "open-forward pin-to-control-plane | mend-pod-network"),
        ("ba5011", &[], "open-forward pin-to-control-plane | restore-route(node)"),
        ("ba5011", node, "open-forward restore-route | "),
        ("ba6001_near_miss", &[], " | "),
        ("ba7001", &[], " | open-forward(policy) admit-outside(policy)"),
        ("ba7001", policy, "open-forward admit-outside | "),
        ("ba7005", policy, "open-forward | "),
        ("ba3002_behind_cluster_ip", system, "open-forward service-node-port | "),
    ];
    let wrong: Vec<String> = table
        .iter()
        .map(|(stem, allow, expected)| (stem, expected, said(&planned(&fixture(stem), &consent(allow)))))
        .filter(|(_, expected, found)| *expected != found)
        .map(|(stem, expected, found)| format!("{stem}: expected {expected:?}, found {found:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn from_elsewhere_the_page_comes_back_at_its_address_first() {
    let laptop = fixture("ba3002_laptop");
    assert_eq!(said(&planned(&laptop, &consent(&[]))), "host-port | schedule-kube-proxy(system)");
    assert_eq!(said(&planned(&laptop, &consent(&[Allow::System]))), "schedule-kube-proxy | ");
    let tried = Policy { tried: BTreeSet::from([(Code(3002), ActionName::HostPort)]), ..consent(&[]) };
    assert_eq!(said(&planned(&laptop, &tried)), "open-forward | schedule-kube-proxy(system)");
    let none = Policy { fallback: false, ..tried };
    assert_eq!(said(&planned(&laptop, &none)), " | schedule-kube-proxy(system)");

    let mut baseline = laptop.clone();
    baseline["objects"]["namespaces"] = json!([{"metadata": {"name": "bookinfo",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}]);
    let plan = planned(&baseline, &consent(&[]));
    assert_eq!(said(&plan), "open-forward | schedule-kube-proxy(system)");
    let Act::Forward { listen_address, listen_port, front, .. } = &plan.steps[0].act else { panic!("{plan:?}") };
    assert_eq!((listen_address.to_string().as_str(), *listen_port, *front), ("127.0.0.1", 30080, false));

    assert_eq!(said(&planned(&fixture("ba6001"), &consent(&[]))), "open-forward | open-security-group");
    assert_eq!(said(&planned(&from_laptop(fixture("ba1002")), &consent(&[]))), "service-node-port | ");
    assert_eq!(said(&planned(&fixture("ba5011_laptop"), &consent(&[]))), "pin-to-control-plane | restore-route");
}

/// The same, dialled by IPv6, on a cluster of both families.
fn by_ipv6(mut value: Value) -> Value {
    value["addresses"] = json!([{"ip": "2001:db8:113::10", "source": "flag", "node": "cp1"}]);
    value["objects"]["services"][0]["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    let mut slice = value["objects"]["endpointSlices"][0].clone();
    slice["metadata"]["name"] = json!("productpage-v6");
    slice["addressType"] = json!("IPv6");
    slice["endpoints"][0]["addresses"] = json!(["fd00:10:244:1::7"]);
    value["objects"]["endpointSlices"].as_array_mut().unwrap().push(slice);
    let addresses = &mut value["objects"]["nodes"][0]["status"]["addresses"];
    addresses.as_array_mut().unwrap().push(json!({"type": "InternalIP", "address": "fd30::10"}));
    for probe in value["probes"].as_array_mut().unwrap().iter_mut().filter(|p| p["vantage"] == "outsider") {
        probe["host"] = json!("fd30::10");
    }
    value
}

#[test]
fn dialled_by_ipv6_the_fallback_listens_there_and_rules_of_ipv4_are_not_blamed() {
    let plan = planned(&by_ipv6(fixture("ba3002")), &consent(&[]));
    let Act::Forward { listen_address, front, .. } = &plan.steps[0].act else { panic!("{plan:?}") };
    assert_eq!((listen_address.to_string().as_str(), *front), ("fd30::10", true));
    let address = "--address fd30::10";
    assert!(plan.steps[0].command.ends_with(address), "{}", plan.steps[0].command);

    let walled = planned(&by_ipv6(fixture("ba4004")), &consent(&[Allow::Node]));
    assert!(!said(&walled).contains("accept-on-node"), "{}", said(&walled));
}

#[test]
fn without_a_fallback_the_node_gets_the_last_rung() {
    let none = Policy { fallback: false, ..consent(&[]) };
    assert_eq!(said(&planned(&fixture("ba3019"), &none)), "host-port | schedule-kube-proxy(system)");
    let tried = Policy { tried: BTreeSet::from([(Code(3019), ActionName::OpenForward)]), ..consent(&[]) };
    assert_eq!(said(&planned(&fixture("ba3019"), &tried)), "host-port | schedule-kube-proxy(system)");
    let standing = Policy { standing: BTreeSet::from(["bookinfo/productpage".to_owned()]), ..consent(&[]) };
    assert_eq!(said(&planned(&fixture("ba3019"), &standing)), " | schedule-kube-proxy(system)");
}

#[test]
fn data_is_not_moved_without_leave() {
    let mut value = fixture("ba5011");
    let spec = &mut value["objects"]["deployments"][0]["spec"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "tmp", "emptyDir": {}}, {"name": "cache", "emptyDir": {"medium": "Memory"}},
        {"name": "config", "configMap": {"name": "c"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"},
        {"name": "cache", "mountPath": "/cache"}, {"name": "config", "mountPath": "/etc/c"}]);
    assert_eq!(said(&planned(&value, &consent(&[]))), "open-forward pin-to-control-plane | restore-route(node)");

    for kept in [
        json!({"name": "cache", "emptyDir": {}}),
        json!({"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}),
        json!({"name": "cache", "hostPath": {"path": "/srv"}}),
    ] {
        value["objects"]["deployments"][0]["spec"]["template"]["spec"]["volumes"][1] = kept;
        let plan = planned(&value, &consent(&[]));
        assert_eq!(said(&plan), "open-forward | restore-route(node) pin-to-control-plane(workload)");
        assert!(plan.withheld[1].why.args.iter().any(|(_, v)| v.contains("cache")), "the loss is named");
        let allowed = planned(&value, &consent(&[Allow::Workload]));
        assert_eq!(said(&allowed), "open-forward pin-to-control-plane | restore-route(node)");
    }
}

#[test]
fn a_host_port_pins_and_recreates() {
    let plan = planned(&fixture("ba3002_laptop"), &consent(&[]));
    let Act::Patch { object, changes, .. } = &plan.steps[0].act else { panic!("{plan:?}") };
    assert_eq!(object.to_string(), "deployment/productpage-v1");
    let shown: Vec<(String, Value)> =
        changes.iter().map(|c| (patch::readable(&c.path), c.to.clone().unwrap())).collect();
    assert_eq!(
        shown,
        [
            ("spec.template.spec.containers[0].ports[0].hostPort".to_owned(), json!(30080)),
            ("spec.template.spec.nodeSelector".to_owned(), json!({"kubernetes.io/hostname": "cp1"})),
            (
                "spec.template.spec.tolerations".to_owned(),
                json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}])
            ),
            ("spec.strategy".to_owned(), json!({"type": "Recreate"})),
        ]
    );
}

#[test]
fn on_a_guess_nothing_is_changed() {
    let snapshot = snapshot(&fixture("ba3019"));
    let facts = Facts::derive(&snapshot);
    let mut findings = check::run(&facts).findings;
    findings.iter_mut().for_each(|f| f.confidence = Confidence::Possible);
    let policy = consent(&[Allow::System, Allow::Workload]);
    assert_eq!(said(&plan(&facts, &findings, &policy)), "open-forward | ");
}

#[test]
fn a_taken_node_port_and_an_owner_are_said() {
    let mut value = fixture("ba1002");
    value["objects"]["services"].as_array_mut().unwrap().push(json!({
        "metadata": {"name": "goldpinger", "namespace": "kube-system"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}));
    let plan = planned(&value, &consent(&[]));
    assert_eq!(said(&plan), " | ");
    assert!(plan.notes.iter().any(|n| n.key == "action.service-node-port.taken"), "{:?}", plan.notes);

    let mut owned = fixture("ba1002");
    owned["objects"]["services"][0]["metadata"]["labels"] = json!({"argocd.argoproj.io/instance": "bookinfo"});
    let notes = planned(&owned, &consent(&[])).notes;
    assert!(notes.iter().any(|n| n.key == "plan.note.owned"), "{notes:?}");
}

#[test]
fn the_node_s_fallback_listens_on_its_own_address() {
    let plan = planned(&fixture("ba3019"), &consent(&[]));
    let Act::Forward { listen_address, listen_port, front, .. } = &plan.steps[0].act else { panic!("{plan:?}") };
    assert_eq!((listen_address.to_string().as_str(), *listen_port, *front), ("10.0.0.10", 30080, true));
}

#[test]
fn an_accept_goes_into_the_very_chain_that_stops_and_for_this_port_alone() {
    let table = [
        (
            "ba4014",
            "sudo iptables-nft -w -t raw -I PREROUTING -p tcp -m tcp --dport 30080 -m comment --comment 'kubectl-bookaccess fix' -j ACCEPT",
        ),
        (
            "ba4004",
            "sudo iptables-nft -w -t filter -I FORWARD -d 10.244.1.0/24 -p tcp -m tcp --dport 9080 -m comment --comment 'kubectl-bookaccess fix' -j ACCEPT",
        ),
        (
            "ba4005",
            "sudo nft insert rule inet firewalld filter_FORWARD ip daddr 10.244.1.0/24 tcp dport 9080 accept comment '\"kubectl-bookaccess fix: to 10.244.1.0/24 9080\"'",
        ),
        ("ba4002", "sudo sysctl -w net.ipv4.ip_forward=1"),
        ("ba4007", "sudo sysctl -w net.ipv4.conf.eth1.rp_filter=2"),
        ("ba5011", "sudo ip route add 10.244.1.0/24 via 10.0.0.11"),
    ];
    for (stem, command) in table {
        let plan = planned(&fixture(stem), &consent(&[Allow::Node]));
        let step = plan.steps.iter().find(|s| matches!(s.act, Act::Node { .. })).unwrap();
        assert_eq!((step.command.as_str(), step.tier), (command, crate::model::Tier::T5), "{stem}");
    }
}

#[test]
fn where_only_strangers_are_stopped_the_listener_leads_always() {
    for (stem, expected) in [("ba4004_uplink", true), ("ba4004", false), ("ba3019", false)] {
        let plan = planned(&fixture(stem), &consent(&[]));
        let around = plan.steps.iter().find_map(|s| match &s.act {
            Act::Forward { around, .. } => Some(*around),
            _ => None,
        });
        assert_eq!(around, Some(expected), "{stem}");
    }
}

#[test]
fn answers_that_are_lost_on_the_way_are_fetched_through_the_api_server() {
    for (stem, expected) in [("ba5006", true), ("ba4004", false)] {
        let plan = planned(&fixture(stem), &consent(&[]));
        let step = plan.steps.iter().find(|s| s.name == ActionName::OpenForward).unwrap();
        let Act::Forward { tunnel, .. } = step.act else { panic!("{step:?}") };
        assert_eq!((tunnel, step.command.ends_with(" --mode tunnel")), (expected, expected), "{stem}");
    }
}

#[test]
fn commands_do_exactly_what_the_step_does() {
    let plan = planned(&fixture("ba1002"), &consent(&[]));
    let step = plan.steps.iter().find(|s| s.name == ActionName::ServiceNodePort).unwrap();
    assert_eq!(
        step.command,
        r#"kubectl -n bookinfo patch service productpage --type=json -p '[{"op":"replace","path":"/spec/type","value":"NodePort"},{"op":"add","path":"/spec/ports/0/nodePort","value":30080}]'"#
    );
    assert_eq!(
        step.undo,
        r#"kubectl -n bookinfo patch service productpage --type=json -p '[{"op":"remove","path":"/spec/ports/0/nodePort"},{"op":"replace","path":"/spec/type","value":"ClusterIP"}]'"#
    );
}

fn policies() -> impl Strategy<Value = Policy> {
    let allow = proptest::collection::btree_set(
        prop_oneof![Just(Allow::System), Just(Allow::Node), Just(Allow::Policy), Just(Allow::Workload)],
        0..4,
    );
    let tried = proptest::collection::btree_set(
        (
            prop_oneof![Just(Code(1002)), Just(Code(3002)), Just(Code(3019)), Just(Code(5011))],
            prop_oneof![Just(ActionName::OpenForward), Just(ActionName::HostPort), Just(ActionName::ScheduleKubeProxy)],
        ),
        0..3,
    );
    (allow, any::<bool>(), tried).prop_map(|(allow, fallback, tried)| Policy {
        allow,
        fallback,
        tried,
        ..Policy::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// For every fixture and any policy, from the node and from afar.
    #[test]
    fn a_plan_is_deterministic_permitted_disjoint_and_reversible(policy in policies(), afar in any::<bool>()) {
        for stem in fixtures().keys() {
            let value = if afar { from_laptop(fixture(stem)) } else { fixture(stem) };
            let before = snapshot(&value);
            let facts = Facts::derive(&before);
            let findings = check::run(&facts).findings;
            let made = plan(&facts, &findings, &policy);
            prop_assert_eq!(&made, &plan(&facts, &findings, &policy));
            if findings.iter().all(|f| f.severity != Severity::Error) {
                prop_assert_eq!(&made, &Plan::default(), "{}", stem);
            }
            let mut after = before.clone();
            for (i, step) in made.steps.iter().enumerate() {
                prop_assert!(step.act != Act::Tell);
                prop_assert!(!policy.tried.contains(&(step.cause, step.name)), "{}: {:?}", stem, step.name);
                let grant = match step.tier {
                    crate::model::Tier::T4 => Some(Allow::System),
                    crate::model::Tier::T5 => Some(Allow::Node),
                    _ => None,
                };
                prop_assert!(grant.is_none_or(|g| policy.allow.contains(&g)), "{}: {:?}", stem, step.name);
                prop_assert!(policy.fallback || step.name != ActionName::OpenForward);
                prop_assert!(!step.command.is_empty());
                for other in &made.steps[..i] {
                    if let (Act::Patch { object: a, changes: x, .. }, Act::Patch { object: b, changes: y, .. }) = (&step.act, &other.act) {
                        let clash = a == b && x.iter().any(|x| y.iter().any(|y| patch::overlap(&x.path, &y.path)));
                        prop_assert!(!clash, "{}: {:?} and {:?}", stem, step.name, other.name);
                    }
                }
                prop_assert!(simulate(&mut after, step).is_ok(), "{}: {:?}", stem, step);
            }
            for step in made.steps.iter().rev() {
                prop_assert!(take_back(&mut after, step).is_ok(), "{}: {:?}", stem, step);
            }
            prop_assert_eq!(&after.objects, &before.objects, "{}", stem);
        }
    }
}

/// What a repair of the Service makes of the Snapshot is no longer a finding.
#[test]
fn a_repaired_service_needs_no_second_repair() {
    for code in [1001, 1002, 1003, 1004, 1005, 1102, 1104, 1105, 1201, 1301, 1303, 1304, 1308, 1309, 3004, 3008, 7001] {
        let stem = &format!("ba{code}");
        let mut seen = snapshot(&fixture(stem));
        let plan = planned(&fixture(stem), &consent(&[Allow::System, Allow::Policy]));
        for step in &plan.steps {
            simulate(&mut seen, step).unwrap();
        }
        // A restart brings no log of its own here.
        seen.objects.kube_proxy_logs.clear();
        let left = check::run(&Facts::derive(&seen)).findings;
        assert!(left.iter().all(|f| f.code != Code(code)), "{stem}: {left:?}");
    }
}
