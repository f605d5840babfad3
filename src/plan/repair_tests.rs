//! What the repairs over the API write, for the checks' own fixtures and for what differs from them by little.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::carries_at_once;
use super::tests::{consent, fixture, planned, said};
use crate::model::{Act, ActionName, Allow, Plan, Step};

fn step(plan: &Plan, name: ActionName) -> &Step {
    plan.steps.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{}", said(plan)))
}

/// What a step writes: the fields with their new values.
fn writes(plan: &Plan, name: ActionName) -> Vec<(String, Value)> {
    match &step(plan, name).act {
        Act::Patch { changes, .. } | Act::Configure { changes, .. } => {
            changes.iter().map(|c| (c.path.clone(), json!(c.to))).collect()
        }
        Act::Create { manifest, .. } => vec![("/spec".to_owned(), manifest["spec"].clone())],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sibling_has_the_pods_of_the_service_and_the_port_that_browsers_dial() {
    for (stem, selector) in [("ba1003", json!({"app": "productpage"})), ("ba1004", json!({"app": "productpage"}))] {
        let plan = planned(&fixture(stem), &consent(&[]));
        let spec = &writes(&plan, ActionName::SiblingService)[0].1;
        assert_eq!((&spec["type"], &spec["selector"]), (&json!("NodePort"), &selector), "{stem}");
        let port = &spec["ports"][0];
        assert_eq!((&port["targetPort"], &port["nodePort"]), (&json!(9080), &json!(30080)), "{stem}");
        let undo = &step(&plan, ActionName::SiblingService).undo;
        assert_eq!(undo, "kubectl -n bookinfo delete service productpage-bookaccess");
    }
    let mut unclear = fixture("ba1003");
    unclear["objects"]["deployments"] = json!([]);
    assert_eq!(said(&planned(&unclear, &consent(&[]))), " | create-service");
    let mut found = fixture("ba1004");
    found["targets"][0]["service"] = json!("ratings");
    found["objects"]["services"][0]["metadata"]["name"] = json!("ratings");
    assert!(!said(&planned(&found, &consent(&[]))).contains("sibling"), "nobody named it");
}

#[test]
fn a_missing_service_is_created_only_where_one_deployment_is_meant() {
    let spec = |value: &Value| writes(&planned(value, &consent(&[])), ActionName::CreateService)[0].1.clone();
    let ports = spec(&fixture("ba1001"))["ports"].clone();
    assert_eq!(ports[0]["nodePort"], json!(30080));
    let mut two = fixture("ba1001");
    let mut second = two["objects"]["deployments"][0].clone();
    second["metadata"]["name"] = json!("productpage-v2");
    two["objects"]["deployments"].as_array_mut().unwrap().push(second);
    assert_eq!(said(&planned(&two, &consent(&[]))), " | create-service");
    let mut portless = fixture("ba1001");
    portless["objects"]["deployments"][0]["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([]);
    assert_eq!(said(&planned(&portless, &consent(&[]))), " | create-service");
}

#[test]
fn exactly_the_page_s_pods_and_port_are_admitted() {
    let plan = planned(&fixture("ba7001"), &consent(&[Allow::Policy]));
    assert_eq!(
        writes(&plan, ActionName::AdmitOutside)[0].1,
        json!({"podSelector": {"matchLabels": {"app": "productpage"}}, "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": 9080, "protocol": "TCP"}]}]})
    );
}

#[test]
fn what_leads_to_another_port_is_mended_before_a_fallback_opens() {
    let plan = planned(&fixture("ba1105"), &consent(&[]));
    assert!(plan.steps.iter().all(|s| !carries_at_once(s)), "{}", said(&plan));
    let numbers: Vec<Value> = writes(&plan, ActionName::ExchangeNodePorts).into_iter().map(|(_, to)| to).collect();
    assert!(numbers.contains(&json!(30080)) && numbers.len() == 2, "{numbers:?}");
}

#[test]
fn a_label_alone_goes_with_its_map() {
    for more in [false, true] {
        let mut value = fixture("ba1304");
        let labels = &mut value["objects"]["services"][0]["metadata"]["labels"];
        let proxy = labels["service.kubernetes.io/service-proxy-name"].clone();
        *labels = json!({"service.kubernetes.io/service-proxy-name": proxy});
        if more {
            labels["app"] = json!("productpage");
        }
        let path = writes(&planned(&value, &consent(&[])), ActionName::ServiceProxyName)[0].0.clone();
        let expected =
            if more { "/metadata/labels/service.kubernetes.io~1service-proxy-name" } else { "/metadata/labels" };
        assert_eq!(path, expected);
    }
}

/// The fixture with a Deployment at revision 2, whose former template had another image.
fn rolled_out(stem: &str) -> Value {
    let mut value = fixture(stem);
    let objects = &mut value["objects"];
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "productpage-v1-new", "uid": "rs-new"}]);
    objects["pods"][0]["metadata"]["ownerReferences"] = owner;
    let deployment = &mut objects["deployments"][0];
    deployment["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "2"});
    let uid = deployment["metadata"]["uid"].clone();
    let template = deployment["spec"]["template"].clone();
    let set = |name: &str, revision: &str, image: &str| {
        let mut template = template.clone();
        template["spec"]["containers"][0]["image"] = json!(image);
        template["metadata"]["labels"]["pod-template-hash"] = json!(name);
        json!({"metadata": {"name": name, "namespace": "bookinfo", "annotations": {"deployment.kubernetes.io/revision": revision},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "productpage-v1", "uid": uid}]},
            "spec": {"selector": {}, "template": template}})
    };
    let present = template["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    objects["replicaSets"] =
        json!([set("productpage-v1-new", "2", &present), set("productpage-v1-old", "1", "bookinfo/productpage:0")]);
    value
}

#[test]
fn a_revision_that_does_not_come_up_gives_way_to_the_former_one() {
    for stem in ["ba2003", "ba2004"] {
        let plan = planned(&rolled_out(stem), &consent(&[]));
        assert_eq!(
            writes(&plan, ActionName::RolloutUndo),
            [("/spec/template/spec/containers/0/image".to_owned(), json!("bookinfo/productpage:0"))],
            "{stem}"
        );
        // A pod of another revision, no former revision, and a former one that is alike are no reason.
        let mut other = rolled_out(stem);
        other["objects"]["pods"][0]["metadata"]["ownerReferences"][0]["name"] = json!("productpage-v1-old");
        let mut first = rolled_out(stem);
        first["objects"]["replicaSets"].as_array_mut().unwrap().pop();
        let mut alike = rolled_out(stem);
        alike["objects"]["replicaSets"][1]["spec"] = alike["objects"]["replicaSets"][0]["spec"].clone();
        for value in [other, first, alike] {
            assert_eq!(said(&planned(&value, &consent(&[]))), " | mend-workload", "{stem}");
        }
    }
}

fn pending(why: &str) -> Value {
    let mut value = fixture("ba2002");
    value["objects"]["pods"][0]["status"]["conditions"][0]["message"] = json!(why);
    value
}

#[test]
fn what_no_node_satisfies_is_taken_away() {
    let mut value = pending("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.");
    assert_eq!(said(&planned(&value, &consent(&[]))), " | mend-workload", "nothing in the template asks for it");
    value["objects"]["deployments"][0]["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "tape"});
    let plan = planned(&value, &consent(&[]));
    assert_eq!(writes(&plan, ActionName::Unpin), [("/spec/template/spec/nodeSelector".to_owned(), json!(null))]);
}

#[test]
fn a_node_is_uncordoned_with_leave_where_all_that_fit_are_cordoned() {
    let mut value = pending("0/2 nodes are available: 1 node(s) had untolerated taint, 1 node(s) were unschedulable.");
    assert_eq!(said(&planned(&value, &consent(&[Allow::System]))), " | mend-workload", "a node that fits is open");
    let nodes = value["objects"]["nodes"].as_array_mut().unwrap();
    nodes.iter_mut().for_each(|n| n["spec"]["unschedulable"] = json!(true));
    assert_eq!(said(&planned(&value, &consent(&[]))), " | uncordon(system) mend-workload");
    let plan = planned(&value, &consent(&[Allow::System]));
    let uncordon = step(&plan, ActionName::Uncordon);
    assert_eq!((uncordon.command.as_str(), uncordon.undo.as_str()), ("kubectl uncordon w1", "kubectl cordon w1"));
}

#[test]
fn kube_proxy_s_configuration_is_mended_where_it_is_wrong() {
    let written = |value: &Value| {
        let (path, text) =
            writes(&planned(value, &consent(&[Allow::System])), ActionName::ConfigureKubeProxy).remove(0);
        (path, text.as_str().unwrap().to_owned())
    };
    let config = |lines: &str| {
        ("/data/config.conf".to_owned(), format!("kind: KubeProxyConfiguration\nmode: iptables\n{lines}"))
    };
    assert_eq!(written(&fixture("ba3004")), config("conntrack:\n  maxPerCore: 0\n  min: 0\n"));
    assert_eq!(written(&fixture("ba3008")), config("nodePortAddresses: [\"192.168.0.0/16\",\"10.0.0.10/32\"]\n"));
    let server = "clusters:\n- cluster:\n    server: https://10.0.0.10:6443\n";
    assert_eq!(written(&fixture("ba3006")), ("/data/kubeconfig.conf".to_owned(), server.to_owned()));
    let mut invalid = fixture("ba3003");
    invalid["objects"]["kubeProxyConfig"]["data"]["config.conf"] =
        json!("kind: KubeProxyConfiguration\nmode: iptabels\n");
    invalid["objects"]["kubeProxyLogs"]["kube-proxy-cp1"] = json!(
        "E1123 failed validate: KubeProxyConfiguration.Mode.ProxyMode: Invalid value: \"iptabels\": must be blank"
    );
    let (_, text) = written(&invalid);
    assert_eq!(text, "kind: KubeProxyConfiguration\nmode: \"\"\n");
    // Each other node's kube-proxy follows, one by one.
    let plan = planned(&fixture("ba3008"), &consent(&[Allow::System]));
    assert_eq!(step(&plan, ActionName::RestartKubeProxy).args["node"], "w1");
}

#[test]
fn two_families_are_served_where_the_pods_have_both() {
    let mut value = fixture("ba1306");
    value["objects"]["services"][0]["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    assert!(!said(&planned(&value, &consent(&[]))).contains("ip-family"));
    value["objects"]["pods"][0]["status"]["podIPs"] = json!([{"ip": "10.244.1.7"}, {"ip": "fd00:10:244:1::7"}]);
    let plan = planned(&value, &consent(&[]));
    assert_eq!(writes(&plan, ActionName::IpFamily), [("/spec/ipFamilyPolicy".to_owned(), json!("PreferDualStack"))]);
}
