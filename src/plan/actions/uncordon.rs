//! Lets a cordoned node take pods again, where every node that fits the pod is cordoned.

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::{arg, deployment, entry_node, identify, patching, service};
use crate::facts::{Facts, TargetFacts, node, placement, pod};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

/// The scheduler's word for a cordoned node (NodeUnschedulable plugin).
const CORDONED: &str = "were unschedulable";

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let none = || Text::new("action.uncordon.none");
    let said = service(target)?.live_pods().any(|p| pod::unschedulable(p).is_some_and(|why| why.contains(CORDONED)));
    let spec = deployment(target)?.spec.as_ref().and_then(|s| s.template.spec.as_ref()).ok_or_else(none)?;
    let fits = |n: &&Node| node::is_ready(n) && placement::exclusion(spec, n).is_none();
    let mut fitting: Vec<&Node> = facts.snapshot.objects.nodes.iter().filter(fits).collect();
    let entry = entry_node(facts, target).map(node::name);
    fitting.sort_by_key(|n| (Some(node::name(n)) != entry, node::name(n)));
    if !said || fitting.iter().any(|n| !is_cordoned(n)) {
        return Err(none());
    }
    let chosen = fitting.first().ok_or_else(none)?;
    let change = Change { path: "/spec/unschedulable".to_owned(), from: Some(Value::from(true)), to: None };
    let object = identify("Node", &chosen.metadata);
    let mut step = patching(ActionName::Uncordon, Tier::T4, target, finding, object, vec![change], Verify::Cleared);
    step.command = format!("kubectl uncordon {}", node::name(chosen));
    step.undo = format!("kubectl cordon {}", node::name(chosen));
    arg(&mut step, "node", node::name(chosen));
    Ok(step)
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true)
}
