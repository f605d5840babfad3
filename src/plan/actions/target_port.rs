//! Points the Service's targetPort at the port the application really listens on.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{arg, identify, json, patching, port, service};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, PortRef, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?;
    let (index, port) = port(target)?;
    let spec = service
        .deployment
        .and_then(|d| d.spec.as_ref()?.template.spec.as_ref())
        .or_else(|| service.pods.iter().find_map(|p| p.spec.as_ref()));
    let current = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
    let wrong = match &current {
        IntOrString::Int(n) => u16::try_from(*n).ok(),
        IntOrString::String(name) => spec.and_then(|s| named(s, name)),
    };
    let right = answering(target, wrong)
        .or_else(|| spec.and_then(|s| declared(s, wrong)))
        .filter(|right| Some(*right) != wrong)
        .ok_or_else(|| Text::new("action.target-port.unknown").with("service", target.target.to_string()))?;
    let change = Change {
        path: format!("/spec/ports/{index}/targetPort"),
        from: port.target_port.as_ref().map(json),
        to: Some(Value::from(right)),
    };
    let object = identify("Service", &service.service.metadata);
    let mut step = patching(ActionName::TargetPort, Tier::T2, target, finding, object, vec![change], Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(
        &mut step,
        "from",
        match current {
            IntOrString::Int(n) => n.to_string(),
            IntOrString::String(name) => name,
        },
    );
    arg(&mut step, "to", right);
    Ok(step)
}

/// The container port that a targetPort leads to in this pod spec, where it is known.
pub(super) fn resolve(spec: &PodSpec, target_port: &PortRef) -> Option<u16> {
    match target_port {
        PortRef::Number(n) => Some(*n),
        PortRef::Name(name) => named(spec, name),
    }
}

fn named(spec: &PodSpec, name: &str) -> Option<u16> {
    ports(spec).find(|(n, _)| *n == Some(name)).map(|(_, port)| port)
}

fn ports(spec: &PodSpec) -> impl Iterator<Item = (Option<&str>, u16)> {
    spec.containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten())
        .filter(|p| p.protocol.as_deref().is_none_or(|p| p == "TCP"))
        .filter_map(|p| Some((p.name.as_deref(), u16::try_from(p.container_port).ok()?)))
}

/// A port on which the right application answered a probe: the best proof there is.
fn answering(target: &TargetFacts<'_>, wrong: Option<u16>) -> Option<u16> {
    let reach = &target.reach;
    [&reach.pod_proxy, &reach.node_to_pod, &reach.port_forward]
        .into_iter()
        .flatten()
        .find(|p| p.outcome.is_right() && Some(p.port) != wrong)
        .map(|p| p.port)
}

/// The port the pod declares: its readiness probe's, else one named `http…`, else the only one.
fn declared(spec: &PodSpec, wrong: Option<u16>) -> Option<u16> {
    let differs = |port: &u16| Some(*port) != wrong;
    let probed = spec.containers.iter().find_map(|c| readiness(spec, c)).filter(differs);
    let http = ports(spec).find(|(name, port)| name.is_some_and(|n| n.starts_with("http")) && differs(port));
    let mut all: Vec<u16> = ports(spec).map(|(_, port)| port).filter(differs).collect();
    all.sort_unstable();
    all.dedup();
    probed.or(http.map(|(_, port)| port)).or(match all[..] {
        [only] => Some(only),
        _ => None,
    })
}

fn readiness(spec: &PodSpec, container: &Container) -> Option<u16> {
    let probe = container.readiness_probe.as_ref()?;
    let port = probe.http_get.as_ref().map(|h| &h.port).or(probe.tcp_socket.as_ref().map(|t| &t.port))?;
    match port {
        IntOrString::Int(n) => u16::try_from(*n).ok(),
        IntOrString::String(name) => named(spec, name),
    }
}
