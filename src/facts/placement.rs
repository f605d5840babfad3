//! May the pods of a DaemonSet run on a node: node selector, affinity and taints, as the scheduler reads them.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// Why a node is ruled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The field to blame, below the pod template.
    pub path: &'static str,
    /// What it asks for, as a person writes it: `key=value`, `key NotIn (a,b)`, `taint key=value:NoSchedule`.
    pub asks: String,
}

/// Taints that every DaemonSet pod tolerates by itself (the DaemonSet controller adds the tolerations).
const DAEMON_TOLERATED: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// The first thing in a DaemonSet's pod spec that keeps its pods off this node; none where they may run.
pub fn exclusion(spec: &PodSpec, node: &Node) -> Option<Exclusion> {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    for (key, value) in spec.node_selector.iter().flatten() {
        if label(key) != Some(value) {
            return Some(Exclusion { path: "spec.template.spec.nodeSelector", asks: format!("{key}={value}") });
        }
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    if let Some(required) = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) {
        let terms = &required.node_selector_terms;
        if !terms.iter().any(|term| term_matches(term, node)) {
            return Some(Exclusion {
                path: "spec.template.spec.affinity.nodeAffinity",
                asks: terms.iter().map(say_term).collect::<Vec<_>>().join(" || "),
            });
        }
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints
        .iter()
        .filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"))
        .filter(|t| !DAEMON_TOLERATED.contains(&t.key.as_str()))
        .find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
        .map(|taint| Exclusion {
            path: "spec.template.spec.tolerations",
            asks: format!("taint {}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect),
        })
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without requirements matches nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    expressions.iter().all(|r| holds(r, labels.and_then(|l| l.get(&r.key)).map(String::as_str)))
        && fields.iter().all(|r| holds(r, node.metadata.name.as_deref().filter(|_| r.key == "metadata.name")))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|v| number(v));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((value.and_then(number), bound), (Some(v), Some(b)) if v > b),
        "Lt" => matches!((value.and_then(number), bound), (Some(v), Some(b)) if v < b),
        // An operator of a later version: do not claim that it excludes the node.
        _ => true,
    }
}

fn say_term(term: &NodeSelectorTerm) -> String {
    let requirements = term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten());
    requirements
        .map(|r| match r.values.as_deref() {
            Some(values) if !values.is_empty() => format!("{} {} ({})", r.key, r.operator, values.join(",")),
            _ => format!("{} {}", r.key, r.operator),
        })
        .collect::<Vec<_>>()
        .join(" && ")
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value == taint.value.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "cp1", "labels": {"kubernetes.io/os": "linux"}},
            "spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}
        }))
        .unwrap()
    }

    fn path(spec: serde_json::Value) -> Option<&'static str> {
        let mut spec = spec;
        spec["containers"] = json!([]);
        exclusion(&serde_json::from_value(spec).unwrap(), &node()).map(|e| e.path)
    }

    #[test]
    fn kubeadms_daemon_set_runs_everywhere() {
        let spec = json!({"nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"operator": "Exists"}]});
        assert_eq!(path(spec), None);
    }

    #[test]
    fn each_field_can_rule_a_node_out() {
        let anywhere = json!([{"operator": "Exists"}]);
        assert_eq!(path(json!({"nodeSelector": {"no": "where"}})), Some("spec.template.spec.nodeSelector"));
        let keep_off = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["cp1"]}]}]}}});
        assert_eq!(
            path(json!({"affinity": keep_off, "tolerations": anywhere})),
            Some("spec.template.spec.affinity.nodeAffinity")
        );
        assert_eq!(path(json!({})), Some("spec.template.spec.tolerations"));
    }
}
