//! Deletes the kube-proxy pod of the node in question; its DaemonSet makes a new one, which writes all rules.

use super::{arg, blank, entry_node, identify};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::pod::Pod;
use crate::model::{Act, ActionName, Finding, ObjectRef, Restart, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let (on, pod) = here(facts, target)?;
    Ok(deleting(target, finding, on, pod, Verify::Reachable))
}

/// The kube-proxy pod of the node that the address leads to.
pub(super) fn restart(facts: &Facts<'_>, target: &TargetFacts<'_>) -> Result<Restart, Text> {
    let (pod, uid) = identify("Pod", &here(facts, target)?.1.metadata);
    Ok(Restart { pod, uid })
}

/// The same on every other node that is Ready, in the order of their names.
pub(super) fn others(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding, but: &ObjectRef) -> Vec<Step> {
    let ready = |name: &str| facts.node(name).is_some_and(node::is_ready);
    let others = facts.proxy.pods.iter().filter(|(on, pod)| ready(on) && identify("Pod", &pod.metadata).0 != *but);
    others.map(|(on, pod)| deleting(target, finding, on, pod, Verify::Cleared)).collect()
}

fn here<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Result<(&'a str, &'a Pod), Text> {
    let on = entry_node(facts, target).map(node::name).unwrap_or_default();
    let pod = facts.proxy.pods.get(on);
    Ok((on, pod.ok_or_else(|| Text::new("action.restart-kube-proxy.not_there").with("node", on))?))
}

fn deleting(target: &TargetFacts<'_>, finding: &Finding, on: &str, pod: &Pod, verify: Verify) -> Step {
    let (object, uid) = identify("Pod", &pod.metadata);
    let name = object.name.clone();
    let command = format!("kubectl -n {} delete pod {name} --grace-period=1", object.namespace());
    let act = Act::DeletePod { object, uid };
    let mut step = blank(ActionName::RestartKubeProxy, Tier::T4, target, finding, act, verify);
    step.command = command;
    arg(&mut step, "pod", name);
    arg(&mut step, "node", on);
    step
}
