//! Told: the route to another node's pod network.

use super::{arg, entry_node, service, told};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Finding, Step, Text, Tier};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.restore-route.unknown");
    let from = entry_node(facts, target).map(node::name).unwrap_or_default();
    let endpoint = service(target)?.usable().find(|e| e.node.is_some_and(|n| n != from)).ok_or_else(unknown)?;
    let far = endpoint.node.and_then(|n| facts.node(n)).ok_or_else(unknown)?;
    let networks = node::pod_cidrs(far);
    let cidr = networks.into_iter().find(|c| node::cidr_contains(c, endpoint.ip)).ok_or_else(unknown)?;
    let via = node::internal_ips(far).first().copied().ok_or_else(unknown)?;
    let command = format!("sudo ip route replace {cidr} via {via}");
    let undo = format!("sudo ip route del {cidr} via {via}");
    let mut step = told(ActionName::RestoreRoute, Tier::T5, target, finding, command, undo);
    arg(&mut step, "node", from);
    arg(&mut step, "far", node::name(far));
    arg(&mut step, "cidr", cidr);
    Ok(step)
}
