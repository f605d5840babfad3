//! Lets the kube-proxy DaemonSet run on every Linux node again, as kubeadm makes it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, PodSpec};
use serde_json::json;

use super::pin_to_control_plane::{POD_SPEC, covers};
use super::{arg, identify, json as as_json, patching};
use crate::facts::{Facts, TargetFacts, node, proxy};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

/// The one key kubeadm puts into the DaemonSet's nodeSelector.
const OS: &str = "kubernetes.io/os";

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let daemon_set = facts
        .proxy
        .daemon_set
        .filter(|_| facts.proxy.kind == proxy::Kind::DaemonSet)
        .ok_or_else(|| Text::new("action.schedule-kube-proxy.none"))?;
    let spec = daemon_set.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    let unserved: Vec<&Node> = facts
        .snapshot
        .objects
        .nodes
        .iter()
        .filter(|n| linux(n) && !facts.proxy.pods.contains_key(node::name(n)))
        .collect();
    let changes = spec.map(|s| changes(s, &unserved)).unwrap_or_default();
    if changes.is_empty() {
        return Err(Text::new("action.schedule-kube-proxy.not_excluded"));
    }
    let object = identify("DaemonSet", &daemon_set.metadata);
    let mut step = patching(ActionName::ScheduleKubeProxy, Tier::T4, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "nodes", unserved.iter().map(|n| node::name(n)).collect::<Vec<_>>().join(", "));
    Ok(step)
}

fn linux(node: &Node) -> bool {
    node.metadata.labels.as_ref().and_then(|l| l.get(OS)).is_none_or(|os| os == "linux")
}

/// Takes away whatever keeps the pods off these nodes, and nothing else.
fn changes(spec: &PodSpec, unserved: &[&Node]) -> Vec<Change> {
    let mut changes = Vec::new();
    let nothing = BTreeMap::new();
    let labels = |n: &Node| n.metadata.labels.clone().unwrap_or_default();
    let selector = spec.node_selector.as_ref().unwrap_or(&nothing);
    if unserved.iter().any(|n| selector.iter().any(|(k, v)| labels(n).get(k) != Some(v))) {
        changes.push(Change {
            path: format!("{POD_SPEC}/nodeSelector"),
            from: Some(as_json(selector)),
            to: Some(json!({OS: "linux"})),
        });
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    if let (Some(affinity), Some(required)) = (&spec.affinity, required) {
        // Terms are alternatives; the requirements of one term hold together.
        let admits = |n: &Node| {
            required.node_selector_terms.iter().any(|t| {
                let expressions = t.match_expressions.iter().flatten().all(|r| holds(r, labels(n).get(&r.key)));
                let name = node::name(n).to_owned();
                expressions && t.match_fields.iter().flatten().all(|r| holds(r, Some(&name)))
            })
        };
        if unserved.iter().any(|n| !admits(n)) {
            changes.push(Change { path: format!("{POD_SPEC}/affinity"), from: Some(as_json(affinity)), to: None });
        }
    }
    let tolerated = |n: &Node| {
        n.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten().all(|t| {
            t.effect == "PreferNoSchedule" || spec.tolerations.iter().flatten().any(|tolerates| covers(tolerates, t))
        })
    };
    if unserved.iter().any(|n| !tolerated(n)) {
        changes.push(Change {
            path: format!("{POD_SPEC}/tolerations"),
            from: spec.tolerations.as_ref().map(as_json),
            to: Some(json!([{"operator": "Exists"}])),
        });
    }
    changes
}

/// Whether one requirement of a node affinity holds for a label's value.
fn holds(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let compare = |order: std::cmp::Ordering| {
        let number = |s: Option<&String>| s.and_then(|s| s.parse::<i64>().ok());
        number(value).zip(number(values.first())).is_some_and(|(have, want)| have.cmp(&want) == order)
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;

    fn node(name: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
            "spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}
        }))
        .unwrap()
    }

    fn paths(spec: Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        changes(&spec, &[&node("cp1")]).into_iter().map(|c| c.path).collect()
    }

    #[test]
    fn only_what_excludes_the_node_is_taken_away() {
        let everywhere = json!([{"operator": "Exists"}]);
        let selector = json!({"containers": [], "tolerations": everywhere, "nodeSelector": {"no": "where"}});
        assert_eq!(paths(selector), ["/spec/template/spec/nodeSelector"]);
        let not_in = |values: Value| {
            json!({"containers": [], "tolerations": everywhere, "nodeSelector": {"kubernetes.io/os": "linux"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": values}]}]}}}})
        };
        assert_eq!(paths(not_in(json!(["cp1"]))), ["/spec/template/spec/affinity"]);
        assert!(paths(not_in(json!(["w9"]))).is_empty());
        assert_eq!(paths(json!({"containers": []})), ["/spec/template/spec/tolerations"]);
    }
}
