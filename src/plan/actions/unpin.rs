//! Takes away what binds the pods to nodes that do not exist: labels in nodeSelector or affinity that no node has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec};

use super::pin_to_control_plane::POD_SPEC;
use super::{arg, deployment, identify, json, patching, service, without_key};
use crate::facts::{Facts, TargetFacts, placement, pod};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

/// The scheduler's word for it (NodeAffinity plugin).
const UNMATCHED: &str = "didn't match Pod's node affinity/selector";

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let fine = || Text::new("action.unpin.satisfiable");
    let said = service(target)?.live_pods().any(|p| pod::unschedulable(p).is_some_and(|why| why.contains(UNMATCHED)));
    let deployment = deployment(target)?;
    let spec = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref()).ok_or_else(fine)?;
    let nodes = &facts.snapshot.objects.nodes;
    let changes = changes(spec, nodes);
    if !said || nodes.is_empty() || changes.is_empty() {
        return Err(fine());
    }
    let asks: Vec<String> = nodes.iter().filter_map(|n| Some(placement::exclusion(spec, n)?.asks)).take(1).collect();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let object = identify("Deployment", &deployment.metadata);
    let mut step = patching(ActionName::Unpin, Tier::T3, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "deployment", name);
    arg(&mut step, "asks", asks.join(", "));
    Ok(step)
}

/// Only what no node of the cluster satisfies goes.
fn changes(spec: &PodSpec, nodes: &[Node]) -> Vec<Change> {
    selector(spec.node_selector.as_ref(), nodes).into_iter().chain(affinity(spec, nodes)).collect()
}

fn selector(current: Option<&BTreeMap<String, String>>, nodes: &[Node]) -> Vec<Change> {
    let Some(current) = current else { return Vec::new() };
    let has = |n: &Node, key: &str, value: &str| {
        n.metadata.labels.as_ref().and_then(|l| l.get(key)).is_some_and(|v| v == value)
    };
    let foreign: Vec<&str> =
        current.iter().filter(|(k, v)| !nodes.iter().any(|n| has(n, k, v))).map(|(k, _)| k.as_str()).collect();
    let path = format!("{POD_SPEC}/nodeSelector");
    match foreign.len() {
        0 => Vec::new(),
        all if all == current.len() => vec![Change { path, from: Some(json(current)), to: None }],
        _ => foreign.into_iter().filter_map(|key| without_key(&path, current, key)).collect(),
    }
}

/// The required part of the node affinity, with whatever would be empty without it.
fn affinity(spec: &PodSpec, nodes: &[Node]) -> Option<Change> {
    let affinity = spec.affinity.as_ref()?;
    let of_nodes = affinity.node_affinity.as_ref()?;
    let required = of_nodes.required_during_scheduling_ignored_during_execution.as_ref()?;
    let alone = PodSpec { affinity: spec.affinity.clone(), ..PodSpec::default() };
    let unmet = |n: &Node| placement::exclusion(&alone, n).is_some_and(|e| e.path.ends_with("nodeAffinity"));
    if nodes.iter().any(|n| !unmet(n)) {
        return None;
    }
    let path = format!("{POD_SPEC}/affinity");
    let (path, from) = if of_nodes.preferred_during_scheduling_ignored_during_execution.is_some() {
        (format!("{path}/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution"), json(required))
    } else if affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some() {
        (format!("{path}/nodeAffinity"), json(of_nodes))
    } else {
        (path, json(affinity))
    };
    Some(Change { path, from: Some(from), to: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn paths(spec: Value) -> Vec<String> {
        let node = json!({"metadata": {"name": "w1", "labels": {"kubernetes.io/os": "linux", "disk": "ssd"}}});
        let nodes: Vec<Node> = serde_json::from_value(json!([node])).unwrap();
        let mut spec = spec;
        spec["containers"] = json!([]);
        changes(&serde_json::from_value(spec).unwrap(), &nodes).into_iter().map(|c| c.path).collect()
    }

    #[test]
    fn only_what_no_node_has_is_taken_away() {
        let affinity = |key: &str| {
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": "Exists"}]}]}})
        };
        for (spec, expected) in [
            (json!({}), vec![]),
            (json!({"nodeSelector": {"disk": "ssd"}}), vec![]),
            (json!({"nodeSelector": {"disk": "tape"}}), vec!["/spec/template/spec/nodeSelector"]),
            (
                json!({"nodeSelector": {"kubernetes.io/os": "linux", "disk": "tape"}}),
                vec!["/spec/template/spec/nodeSelector/disk"],
            ),
            (json!({"affinity": {"nodeAffinity": affinity("disk")}}), vec![]),
            (json!({"affinity": {"nodeAffinity": affinity("gpu")}}), vec!["/spec/template/spec/affinity"]),
            (
                json!({"affinity": {"nodeAffinity": affinity("gpu"), "podAntiAffinity": {}}}),
                vec!["/spec/template/spec/affinity/nodeAffinity"],
            ),
        ] {
            assert_eq!(paths(spec.clone()), expected, "{spec}");
        }
    }
}
