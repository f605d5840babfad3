//! Lets the page's packets through the firewall that stops them: an accept at the head of the very chain that does, for
//! this port of the pods' network alone. An accept in another chain would not override it.

use std::net::IpAddr;

use super::{arg, browser_port, on_node, service};
use crate::facts::passage::{self, Part, Stopped};
use crate::facts::{Facts, ServiceFacts, TargetFacts};
use crate::model::node_setting::Packets;
use crate::model::{ActionName, Finding, NodeSetting, Step, Text};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.accept-on-node.unknown");
    let service = service(target)?;
    let port = service.node_port().or(browser_port(target)).ok_or_else(unknown)?;
    let firewall = facts.snapshot.host.as_ref().and_then(|h| h.firewall.as_ref()).ok_or_else(unknown)?;
    let stopped = passage::stopped(facts, target);
    // What comes before the translation has its own finding.
    let early = finding.code.0 == 4014;
    let concerned: Vec<&Stopped<'_>> =
        stopped.iter().filter(|s| (s.part == Part::BeforeTranslation) == early).collect();
    let first = concerned.first().ok_or_else(unknown)?;
    let firewalld = firewall.managers.contains("firewalld") && first.barrier.base.table == "firewalld";
    let mut settings: Vec<NodeSetting> = Vec::new();
    if firewalld {
        settings.push(NodeSetting::FirewalldPort { port });
    }
    for stopped in &concerned {
        let setting = match stopped.pod {
            Some((ip, _)) if firewalld => NodeSetting::FirewalldSource { cidr: network(facts, service, ip) },
            _ => accept(stopped, packets(facts, service, stopped, port)),
        };
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    let chain = first.barrier.base.title();
    let mut step = on_node(ActionName::AcceptOnNode, facts, target, finding, &finding.subject.name, settings);
    arg(&mut step, "chain", chain);
    arg(&mut step, "port", port);
    Ok(step)
}

fn packets(facts: &Facts<'_>, service: &ServiceFacts<'_>, stopped: &Stopped<'_>, node_port: u16) -> Packets {
    match stopped.pod {
        None => Packets { network: None, port: node_port, answers: false },
        Some((ip, port)) => {
            Packets { network: Some(network(facts, service, ip)), port, answers: stopped.part == Part::Answers }
        }
    }
}

/// The network of the pod's node, so that the next pod is let through as well; else the pod's address alone.
fn network(facts: &Facts<'_>, service: &ServiceFacts<'_>, ip: IpAddr) -> String {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    passage::pod_network(facts, service, ip).map_or_else(|| format!("{ip}/{length}"), str::to_owned)
}

fn accept(stopped: &Stopped<'_>, packets: Packets) -> NodeSetting {
    let base = stopped.barrier.base;
    let (table, chain) = (base.table.clone(), base.name.clone());
    if base.is_iptables() {
        return NodeSetting::IptablesAccept { program: base.program.clone(), table, chain, packets };
    }
    NodeSetting::NftAccept { family: base.family.clone(), table, chain, packets }
}
