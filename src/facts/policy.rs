//! What the NetworkPolicies of a namespace say of packets from outside the cluster, read as the API defines them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::Snapshot;
use crate::model::pod::Pod;

use super::{node, pod};

/// DaemonSets of kube-system that enforce policies.
const ENFORCERS: [&str; 8] =
    ["calico-node", "canal", "cilium", "kube-router", "antrea-agent", "weave-net", "kube-ovn-cni", "rke2-canal"];

/// The policies that together keep strangers from this port of a pod: all those that select it, where none of them
/// admits what comes from outside; empty where it is open. A rule for an address range counts as open: which address a
/// packet bears when it meets the policy depends on the way it came.
pub fn denying<'a>(policies: &[&'a NetworkPolicy], pod: &Pod, port: u16) -> Vec<&'a NetworkPolicy> {
    // What holds for a pod in the node's own network is for the CNI to say.
    if pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
        return Vec::new();
    }
    let selecting = selecting(policies, pod);
    if selecting.iter().any(|(_, spec)| admits(spec, pod, port)) {
        return Vec::new();
    }
    selecting.into_iter().map(|(policy, _)| policy).collect()
}

/// The address ranges by which policies let strangers in at this port of a pod, each with the policy that says so, where
/// ranges are all that they let in from outside; empty where somebody is let in without asking whence.
pub fn ranges<'a>(policies: &[&'a NetworkPolicy], pod: &Pod, port: u16) -> Vec<(&'a NetworkPolicy, &'a IPBlock)> {
    let mut found = Vec::new();
    for (policy, spec) in selecting(policies, pod) {
        for rule in covering(spec, pod, port) {
            let from = rule.from.as_deref().unwrap_or_default();
            if from.is_empty() {
                return Vec::new();
            }
            found.extend(from.iter().filter_map(|peer| Some((policy, peer.ip_block.as_ref()?))));
        }
    }
    found
}

/// Whether a range holds this address and does not except it.
pub fn holds_address(block: &IPBlock, ip: IpAddr) -> bool {
    let excepted = block.except.iter().flatten().any(|cidr| node::cidr_contains(cidr, ip));
    node::cidr_contains(&block.cidr, ip) && !excepted
}

/// Whether some policy selects this pod and lets strangers in at this port.
pub fn admits_somebody(policies: &[&NetworkPolicy], pod: &Pod, port: u16) -> bool {
    selecting(policies, pod).iter().any(|(_, spec)| admits(spec, pod, port))
}

/// The policies for what comes to this pod, by name.
fn selecting<'a>(policies: &[&'a NetworkPolicy], pod: &Pod) -> Vec<(&'a NetworkPolicy, &'a NetworkPolicySpec)> {
    let of_pod = policies.iter().filter_map(|p| Some((*p, p.spec.as_ref()?))).filter(|(policy, spec)| {
        let types = spec.policy_types.as_deref().unwrap_or_default();
        policy.metadata.namespace == pod.metadata.namespace
            && (types.is_empty() || types.iter().any(|t| t == "Ingress"))
            && spec.pod_selector.as_ref().is_none_or(|s| selects(s, pod.metadata.labels.as_ref()))
    });
    let mut selecting: Vec<(&NetworkPolicy, &NetworkPolicySpec)> = of_pod.collect();
    selecting.sort_by_key(|(policy, _)| policy.metadata.name.as_deref());
    selecting
}

/// Whether something is known to run in this cluster that enforces policies.
pub fn is_enforced(snapshot: &Snapshot) -> bool {
    let named = |name: &str| ENFORCERS.contains(&name);
    let sets = &snapshot.objects.daemon_sets;
    // An operator keeps Calico in a namespace of its own; it leaves its mark on the nodes.
    let calico = |k: &String| k.starts_with("projectcalico.org/");
    let marked = snapshot.objects.nodes.iter().filter_map(|n| n.metadata.annotations.as_ref());
    sets.iter().any(|d| d.metadata.name.as_deref().is_some_and(named))
        || marked.flat_map(BTreeMap::keys).any(calico)
        || is_rejecting(snapshot)
}

/// Whether what is denied is turned away instead of dropped: by kube-router, which k3s holds within itself.
pub fn is_rejecting(snapshot: &Snapshot) -> bool {
    let version = |n: &k8s_openapi::api::core::v1::Node| {
        n.status.as_ref().and_then(|s| s.node_info.as_ref()).is_some_and(|i| i.kubelet_version.contains("+k3s"))
    };
    let router = |name: Option<&str>| name == Some("kube-router");
    snapshot.objects.nodes.iter().any(version)
        || snapshot.objects.daemon_sets.iter().any(|d| router(d.metadata.name.as_deref()))
}

fn admits(spec: &NetworkPolicySpec, pod: &Pod, port: u16) -> bool {
    covering(spec, pod, port).any(|rule| {
        let from = rule.from.as_deref().unwrap_or_default();
        from.is_empty() || from.iter().any(|peer| peer.ip_block.is_some())
    })
}

/// The rules that concern this port.
fn covering<'a>(
    spec: &'a NetworkPolicySpec,
    pod: &Pod,
    port: u16,
) -> impl Iterator<Item = &'a NetworkPolicyIngressRule> {
    spec.ingress.iter().flatten().filter(move |rule| {
        let ports = rule.ports.as_deref().unwrap_or_default();
        ports.is_empty() || ports.iter().any(|p| covers(p, pod, port))
    })
}

fn covers(allowed: &NetworkPolicyPort, pod: &Pod, port: u16) -> bool {
    let tcp = allowed.protocol.as_deref().is_none_or(|p| p == "TCP");
    tcp && match &allowed.port {
        None => true,
        Some(IntOrString::Int(first)) => (*first..=allowed.end_port.unwrap_or(*first)).contains(&i32::from(port)),
        Some(IntOrString::String(name)) => pod::declared_ports(pod::containers(pod)).contains(&(name, port)),
    }
}

fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    selector.match_labels.iter().flatten().all(|(k, v)| label(k) == Some(v))
        && selector.match_expressions.iter().flatten().all(|r| holds(r, label(&r.key)))
}

fn holds(requirement: &LabelSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().flatten().any(|v| v == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // An operator of a later version: do not claim that it selects the pod.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn denies(specs: &[Value]) -> usize {
        let policy = |spec: &Value| {
            let metadata = json!({"name": "p", "namespace": "bookinfo"});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
        };
        let policies: Vec<NetworkPolicy> = specs.iter().map(policy).collect();
        let pod = json!({"metadata": {"namespace": "bookinfo", "labels": {"app": "productpage"}}, "spec": {"containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 9080}]}]}});
        denying(&policies.iter().collect::<Vec<_>>(), &serde_json::from_value(pod).unwrap(), 9080).len()
    }

    #[test]
    fn policies_are_read_as_the_api_defines_them() {
        let all = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
        let with = |rule: Value| json!({"podSelector": {}, "ingress": [rule]});
        let from_pods = json!([{"podSelector": {}}, {"namespaceSelector": {}}]);
        for (specs, expected) in [
            (vec![], 0),
            (vec![all.clone()], 1),
            (vec![json!({"podSelector": {}, "policyTypes": ["Egress"]})], 0),
            (vec![json!({"podSelector": {"matchLabels": {"app": "reviews"}}})], 0),
            (
                vec![
                    json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["productpage"]}]}}),
                ],
                1,
            ),
            (vec![json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}})], 0),
            (vec![with(json!({}))], 0),
            (vec![with(json!({"from": from_pods}))], 1),
            (vec![with(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}))], 0),
            (vec![with(json!({"ports": [{"port": 9080}]}))], 0),
            (vec![with(json!({"ports": [{"port": 9000, "endPort": 9100}]}))], 0),
            (vec![with(json!({"ports": [{"port": "http"}]}))], 0),
            (vec![with(json!({"ports": [{"port": "grpc"}]}))], 1),
            (vec![with(json!({"ports": [{"port": 9080, "protocol": "UDP"}]}))], 1),
            (vec![all, with(json!({"ports": [{"protocol": "TCP"}]}))], 0),
        ] {
            assert_eq!(denies(&specs), expected, "{specs:?}");
        }
    }
}
