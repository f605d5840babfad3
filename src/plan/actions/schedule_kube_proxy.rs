//! Lets the kube-proxy DaemonSet run on every Linux node again, as kubeadm makes it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec};
use serde_json::json;

use super::pin_to_control_plane::POD_SPEC;
use super::{arg, identify, json as as_json, patching};
use crate::facts::{Facts, TargetFacts, node, placement, proxy};
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
    let excluded = |n: &&Node| facts.proxy.excluded.contains_key(node::name(n));
    let unserved: Vec<&Node> = facts.snapshot.objects.nodes.iter().filter(|n| linux(n)).filter(excluded).collect();
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
fn changes(spec: &PodSpec, nodes: &[&Node]) -> Vec<Change> {
    let mut mended = spec.clone();
    let mut changes = Vec::new();
    // Each turn mends one of the three fields that can exclude a node.
    while let Some(found) = nodes.iter().find_map(|n| placement::exclusion(&mended, n)) {
        let (field, from, to) = if found.path.ends_with("nodeSelector") {
            mended.node_selector = Some(BTreeMap::from([(OS.to_owned(), "linux".to_owned())]));
            ("nodeSelector", spec.node_selector.as_ref().map(as_json), Some(json!({OS: "linux"})))
        } else if found.path.ends_with("nodeAffinity") {
            mended.affinity = None;
            ("affinity", spec.affinity.as_ref().map(as_json), None)
        } else {
            let everything = json!([{"operator": "Exists"}]);
            mended.tolerations = serde_json::from_value(everything.clone()).ok();
            ("tolerations", spec.tolerations.as_ref().map(as_json), Some(everything))
        };
        let change = Change { path: format!("{POD_SPEC}/{field}"), from, to };
        if changes.contains(&change) {
            break;
        }
        changes.push(change);
    }
    changes
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
