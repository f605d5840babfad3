//! Deletes the kube-proxy pod of the node in question; its DaemonSet makes a new one, which writes all rules.

use super::{arg, blank, entry_node, identify};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Act, ActionName, Finding, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let on = entry_node(facts, target).map(node::name).unwrap_or_default();
    let pod =
        facts.proxy.pods.get(on).ok_or_else(|| Text::new("action.restart-kube-proxy.not_there").with("node", on))?;
    let (object, uid) = identify("Pod", &pod.metadata);
    let name = object.name.clone();
    let command = format!("kubectl -n {} delete pod {name}", object.namespace());
    let act = Act::DeletePod { object, uid };
    let mut step = blank(ActionName::RestartKubeProxy, Tier::T4, target, finding, act, Verify::Reachable);
    step.command = command;
    arg(&mut step, "pod", name);
    arg(&mut step, "node", on);
    Ok(step)
}
