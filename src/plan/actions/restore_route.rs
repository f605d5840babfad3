//! Told: the route to another node's pod network.

use super::{arg, entry_node, service, told};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Finding, Step, Text, Tier};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.restore-route.unknown");
    let from = entry_node(facts, target).map(node::name).unwrap_or_default();
    let nodes = &facts.snapshot.objects.nodes;
    let far = service(target)?
        .endpoints
        .iter()
        .filter_map(|e| e.node)
        .find(|n| *n != from)
        .and_then(|name| nodes.iter().find(|n| node::name(n) == name))
        .ok_or_else(unknown)?;
    let cidr = far.spec.as_ref().and_then(|s| s.pod_cidr.as_deref()).ok_or_else(unknown)?;
    let via = node::internal_ips(far).first().copied().ok_or_else(unknown)?;
    let command = format!("sudo ip route replace {cidr} via {via}");
    let undo = format!("sudo ip route del {cidr} via {via}");
    let mut step = told(ActionName::RestoreRoute, Tier::T5, target, finding, command, undo);
    arg(&mut step, "node", from);
    arg(&mut step, "far", node::name(far));
    arg(&mut step, "cidr", cidr);
    Ok(step)
}
