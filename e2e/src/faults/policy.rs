//! NetworkPolicies: objects that say no, and a stand-in for the plugin that enforces them.
//!
//! The lab's pod network enforces none. The stand-in reads the objects from the API again and again and keeps one table
//! of rules on every node accordingly, so that a policy that is changed or removed acts at once, as with a real plugin.
//! What it knows of policies is what the rows need: pods by matchLabels; peers "everybody" or "nobody"; ports by number.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::app::NAMESPACE;
use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::faults::background::Background;
use crate::page::{self, Seen};

const TABLE: &str = "e2e_policy";
/// Between two readings of the policies.
const PAUSE: Duration = Duration::from_millis(300);

/// Nobody may send anything to any pod of the page's namespace; nobody enforces it.
pub fn denies_all() -> Fault {
    // It is gone with its namespace's content before the next scenario.
    Fault::new("a NetworkPolicy denies all ingress", deny_all, |_: &Cluster| Ok(()))
}

/// As [`denies_all`], and it is enforced.
pub fn denies_all_enforced() -> Fault {
    let enforcing = Background::default();
    let ending = enforcing.clone();
    Fault::new(
        "an enforced NetworkPolicy denies all ingress",
        move |cluster: &Cluster| {
            cluster.apply(&plugin().to_string())?;
            enforcing.start(enforcer(cluster.clone()));
            deny_all(cluster)?;
            let url = format!("http://{}:{}/", cluster.public_address, crate::app::PORT);
            page::expect_failure(&cluster.client, &url, &[Seen::Timeout], Duration::from_secs(20)).map(drop)
        },
        move |cluster: &Cluster| {
            ending.end();
            cluster.kubectl(&["-n", "kube-system", "delete", "daemonset", PLUGIN, "--ignore-not-found"])?;
            cluster.nodes.iter().try_for_each(|node| node.place.shell(&ruleset(&[])).map(drop))
        },
    )
}

/// What the stand-in stands in for, by which people and programs know that policies are enforced.
const PLUGIN: &str = "calico-node";

/// Its DaemonSet, which runs nowhere.
fn plugin() -> Value {
    let labels = json!({"k8s-app": PLUGIN});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": PLUGIN, "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "nodeSelector": {"bookaccess-e2e": "nowhere"}, "containers": [{"name": PLUGIN, "image": "none"}]}}},
    })
}

fn deny_all(cluster: &Cluster) -> Result<()> {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    cluster.apply(&policy.to_string())
}

/// Reads the policies once, and writes the rules where they are no longer the same.
fn enforcer(cluster: Cluster) -> impl FnMut() + Send {
    let mut written = None;
    move || {
        // A reading that fails leaves the rules as they are, as a plugin's does.
        if let Ok(rules) = read(&cluster)
            && written.as_ref() != Some(&rules)
            && cluster.nodes.iter().all(|node| node.place.shell(&rules).is_ok())
        {
            written = Some(rules);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The rules for the policies and pods of the page's namespace as they are now.
fn read(cluster: &Cluster) -> Result<String> {
    let all = cluster.get(&["-n", NAMESPACE, "networkpolicies,pods"])?;
    let items = all["items"].as_array().context("not a list")?;
    let of_kind = |kind: &str| items.iter().filter(|item| item["kind"] == kind).collect::<Vec<_>>();
    Ok(ruleset(&isolated(&of_kind("NetworkPolicy"), &of_kind("Pod"))))
}

/// Each pod that a policy selects, with the ports that are open to everybody: None among them means all.
fn isolated(policies: &[&Value], pods: &[&Value]) -> Vec<(IpAddr, Vec<Option<u64>>)> {
    let selects = |policy: &Value, pod: &Value| {
        let labels = policy["spec"]["podSelector"]["matchLabels"].as_object();
        labels.into_iter().flatten().all(|(name, value)| pod["metadata"]["labels"][name] == *value)
    };
    let of_pod = |pod: &&Value| {
        let address = pod["status"]["podIP"].as_str()?.parse().ok()?;
        let chosen: Vec<_> = policies.iter().filter(|policy| selects(policy, pod)).collect();
        let rules = chosen.iter().filter_map(|policy| policy["spec"]["ingress"].as_array()).flatten();
        let open = rules.filter(|rule| rule["from"].as_array().is_none_or(Vec::is_empty)).flat_map(ports);
        (!chosen.is_empty()).then(|| (address, open.collect()))
    };
    pods.iter().filter_map(of_pod).collect()
}

fn ports(rule: &Value) -> Vec<Option<u64>> {
    match rule["ports"].as_array().filter(|ports| !ports.is_empty()) {
        None => vec![None],
        Some(ports) => ports.iter().filter_map(|port| port["port"].as_u64()).map(Some).collect(),
    }
}

/// The command that puts these rules in the place of the former: what a node forwards to a pod, not what it sends itself,
/// as plugins let the kubelet's probes in.
fn ruleset(isolated: &[(IpAddr, Vec<Option<u64>>)]) -> String {
    let mut rules = String::from("ct state established,related accept; ");
    for (address, open) in isolated {
        for port in open {
            let port = port.map_or_else(String::new, |port| format!("tcp dport {port} "));
            rules += &format!("ip daddr {address} {port}accept; ");
        }
        rules += &format!("ip daddr {address} drop; ");
    }
    let chain = format!("chain forward {{ type filter hook forward priority 1; {rules}}};");
    let body = if isolated.is_empty() { String::new() } else { format!("table inet {TABLE} {{ {chain} }};") };
    format!("nft 'table inet {TABLE}; delete table inet {TABLE}; {body}'")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_policies_select_is_closed_but_for_what_they_open() {
        let pod = json!({"metadata": {"labels": {"app": "page"}}, "status": {"podIP": "10.244.0.5"}});
        let policy = |labels: Value, ingress: Value| json!({"spec": {"podSelector": {"matchLabels": labels}, "ingress": ingress}});
        let deny = policy(json!({}), Value::Null);
        let other = policy(json!({"app": "other"}), Value::Null);
        let opens = policy(json!({"app": "page"}), json!([{"ports": [{"port": 9080}]}]));
        let of_nobody = policy(json!({}), json!([{"from": [{"podSelector": {}}]}]));
        let ip: IpAddr = "10.244.0.5".parse().unwrap();
        for (policies, open) in [
            (vec![], None),
            (vec![&other], None),
            (vec![&deny], Some(vec![])),
            (vec![&of_nobody], Some(vec![])),
            (vec![&deny, &opens], Some(vec![Some(9080)])),
        ] {
            let expected: Vec<_> = open.into_iter().map(|open| (ip, open)).collect();
            assert_eq!(isolated(&policies, &[&pod]), expected);
        }
        assert!(
            ruleset(&[(ip, vec![Some(9080)])])
                .contains("ip daddr 10.244.0.5 tcp dport 9080 accept; ip daddr 10.244.0.5 drop")
        );
    }
}
