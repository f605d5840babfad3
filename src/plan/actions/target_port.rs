//! Points the Service's targetPort at the port the application really listens on.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{arg, identify, json, patching, port, service};
use crate::facts::{Facts, ServiceFacts, TargetFacts, pod};
use crate::model::container::of_template;
use crate::model::{ActionName, Change, Finding, PortRef, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?;
    let (index, port) = port(target)?;
    let current = service.target_port();
    let right = right(target, service, finding)
        .filter(|right| Some(right) != current.as_ref())
        .ok_or_else(|| Text::new("action.target-port.unknown").with("service", target.target))?;
    let change = Change {
        path: format!("/spec/ports/{index}/targetPort"),
        from: port.target_port.as_ref().map(json),
        to: Some(json(&right)),
    };
    let object = identify("Service", &service.service.metadata);
    let mut step = patching(ActionName::TargetPort, Tier::T2, target, finding, object, vec![change], Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "from", current.map(|c| c.to_string()).unwrap_or_default());
    arg(&mut step, "to", right);
    Ok(step)
}

/// Where the application listens: a port on which it answered a probe is proof; else what the check suggests, else
/// what its readiness probe asks.
fn right(target: &TargetFacts<'_>, service: &ServiceFacts<'_>, finding: &Finding) -> Option<PortRef> {
    let reach = &target.reach;
    let answered = reach
        .at_pods()
        .chain(reach.port_forward.iter().copied())
        .find(|p| p.outcome.is_right())
        .map(|p| PortRef::Number(p.port));
    let suggested = || match finding.arg("suggestion") {
        "" | "-" => service.likely_container_port().map(|(_, port)| PortRef::Number(port)),
        text => Some(text.parse().map_or_else(|_| PortRef::Name(text.to_owned()), PortRef::Number)),
    };
    answered.or_else(suggested).or_else(|| readiness(service))
}

fn readiness(service: &ServiceFacts<'_>) -> Option<PortRef> {
    service.containers.iter().filter_map(|c| c.readiness_probe.as_ref()).find_map(|probe| {
        match probe.http_get.as_ref().map(|h| &h.port).or(probe.tcp_socket.as_ref().map(|t| &t.port))? {
            IntOrString::Int(number) => u16::try_from(*number).ok().map(PortRef::Number),
            IntOrString::String(name) => Some(PortRef::Name(name.clone())),
        }
    })
}

/// The container port that a targetPort leads to in this pod spec, where it is known.
pub(super) fn resolve(spec: &PodSpec, target_port: &PortRef) -> Option<u16> {
    match target_port {
        PortRef::Number(number) => Some(*number),
        PortRef::Name(name) => {
            pod::declared_ports(&of_template(spec)).into_iter().find(|(n, _)| n == name).map(|(_, port)| port)
        }
    }
}
