//! Opens the fallback path on this machine: on the node that the address leads to on the nodePort itself, elsewhere on
//! this machine's loopback.

use std::net::{IpAddr, Ipv4Addr};

use super::{arg, blank, browser_port, create_service, entry_node, node_port_owner, port, service};
use crate::facts::passage::{self, Part, Stopped};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Act, ActionName, Finding, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let (namespace, service_name) = (target.target.namespace.clone(), target.target.service.clone());
    // A Service that is about to be created has a port already.
    let service_port = match create_service::port(facts, target) {
        Some(port) => i32::from(port),
        None if service(target)?.kind() == "ExternalName" => {
            return Err(Text::new("action.open-forward.external_name").with("service", target.target));
        }
        None => port(target)?.1.port,
    };
    let here = here(facts, target);
    let listen_address = match here {
        Some(address) => address,
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let listen_port = browser_port(target)
        .or_else(|| u16::try_from(service_port).ok())
        .ok_or_else(|| Text::new("plan.cannot.no_port").with("service", target.target))?;
    if here.is_some()
        && let Some(owner) = node_port_owner(facts, target, listen_port)
    {
        return Err(Text::new("action.service-node-port.taken").with("port", listen_port).with("owner", owner));
    }
    let command = format!(
        "kubectl bookaccess forward start -n {namespace} svc/{service_name} {listen_port}:{service_port} --address {listen_address}"
    );
    let undo = format!("kubectl bookaccess forward stop -n {namespace} svc/{service_name}");
    // What a standby's own probes get past it would take for a NodePort that answers, now or once the rest is repaired.
    let unseen = |s: &Stopped<'_>| s.unprobed && s.part != Part::BeforeTranslation;
    let act = Act::Forward {
        namespace,
        service: service_name,
        listen_port,
        listen_address,
        front: here.is_some() && facts.snapshot.stand.root,
        around: passage::stopped(facts, target).iter().any(unseen),
        tunnel: false,
    };
    let mut step = blank(ActionName::OpenForward, Tier::T1, target, finding, act, Verify::Forwarding);
    step.command = command;
    step.undo = undo;
    arg(&mut step, "service", target.target);
    arg(&mut step, "address", std::net::SocketAddr::new(listen_address, listen_port));
    Ok(step)
}

/// The same through the API server alone.
pub(in crate::plan) fn by_tunnel(mut step: Step) -> Step {
    if let Act::Forward { tunnel, .. } = &mut step.act {
        *tunnel = true;
        step.command.push_str(" --mode tunnel");
    }
    step
}

/// This node's own address, where this is the node that the browser's address leads to.
pub(in crate::plan) fn here(facts: &Facts<'_>, target: &TargetFacts<'_>) -> Option<IpAddr> {
    let node = entry_node(facts, target)?;
    let stands = facts.snapshot.stand.node.as_deref() == Some(node::name(node));
    let held = facts.snapshot.held_addresses();
    stands.then(|| node::own_address(node, held, target.reach.address.map(|a| a.ip))).flatten()
}
