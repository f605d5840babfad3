//! Restores the route to another node's pod network on the node that has lost it.

use super::{arg, entry_node, on_node, service};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Finding, NodeSetting, Step, Text};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.restore-route.unknown");
    let from = entry_node(facts, target).map(node::name).unwrap_or_default();
    let endpoint = service(target)?.usable().find(|e| e.node.is_some_and(|n| n != from)).ok_or_else(unknown)?;
    let far = endpoint.node.and_then(|n| facts.node(n)).ok_or_else(unknown)?;
    let networks = node::pod_cidrs(far);
    let cidr = networks.into_iter().find(|c| node::cidr_contains(c, endpoint.ip)).ok_or_else(unknown)?;
    let via = node::internal_ips(far).iter().find_map(|ip| ip.parse().ok()).ok_or_else(unknown)?;
    let route = NodeSetting::Route { cidr: cidr.to_owned(), via };
    let mut step = on_node(ActionName::RestoreRoute, facts, target, finding, from, vec![route]);
    arg(&mut step, "far", node::name(far));
    arg(&mut step, "cidr", cidr);
    Ok(step)
}
