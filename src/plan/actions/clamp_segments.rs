//! Makes connections through the node to the pods agree on small packets, so that none is too large for the way.

use super::{arg, on_node, service};
use crate::facts::{Facts, TargetFacts, passage};
use crate::model::{ActionName, Finding, NodeSetting, Step, Text};

/// Fits into every path that IPv6's least MTU (1280) passes, with an encapsulation around it.
const SIZE: u16 = 1160;

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?;
    let networks = service.usable().filter_map(|e| passage::pod_network(facts, service, e.ip));
    let mut networks: Vec<&str> = networks.filter(|n| !n.contains(':')).collect();
    networks.sort_unstable();
    networks.dedup();
    let first = networks.first().ok_or_else(|| Text::new("action.restore-route.unknown"))?;
    let chains = facts.snapshot.host.as_ref().and_then(|h| h.firewall.as_ref()).map(|f| f.chains.as_slice());
    // The backend that already holds rules of the node, so that no second one comes into play.
    let program = chains.unwrap_or_default().iter().find(|c| c.is_iptables()).map(|c| c.program.as_str());
    let program = program.unwrap_or("iptables");
    let setting = |network: &&str| NodeSetting::SegmentSize {
        program: program.to_owned(),
        network: (*network).to_owned(),
        size: SIZE,
    };
    let settings = networks.iter().map(setting).collect();
    let mut step = on_node(ActionName::ClampSegments, facts, target, finding, &finding.subject.name, settings);
    arg(&mut step, "cidr", first);
    arg(&mut step, "size", SIZE);
    Ok(step)
}
