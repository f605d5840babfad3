//! Opens the port on the node itself (hostPort), which needs no kube-proxy: the last rung of the ladder.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};

use super::pin_to_control_plane::{POD_SPEC, changes as pin_changes, node_to_pin};
use super::{arg, browser_port, deployment, identify, json as as_json, patching, service, target_port};
use crate::facts::{Facts, TargetFacts, node, pod, proxy};
use crate::model::container::Container;
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

/// The namespace label by which Pod Security admission refuses pods.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let deployment = deployment(target)?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let wanted = browser_port(target).ok_or_else(|| Text::new("action.host-port.no_port"))?;
    let node = node_to_pin(facts, target)?;
    admissible(facts, target, deployment, node::name(node), wanted)?;
    let mut changes = vec![port_change(target, deployment, wanted)?];
    changes.extend(pin_changes(deployment, node)?);
    changes.extend(recreate(deployment));
    let object = identify("Deployment", &deployment.metadata);
    let mut step = patching(ActionName::HostPort, Tier::T3, target, finding, object, changes, Verify::Reachable);
    arg(&mut step, "deployment", name);
    arg(&mut step, "node", node::name(node));
    arg(&mut step, "port", wanted);
    Ok(step)
}

/// What forbids a hostPort here.
fn admissible(
    facts: &Facts<'_>,
    target: &TargetFacts<'_>,
    deployment: &Deployment,
    node: &str,
    wanted: u16,
) -> Result<(), Text> {
    let objects = &facts.snapshot.objects;
    let level = objects
        .namespaces
        .iter()
        .find(|n| n.metadata.name.as_deref() == Some(target.target.namespace.as_str()))
        .and_then(|n| n.metadata.labels.as_ref()?.get(ENFORCE));
    if let Some(level) = level.filter(|l| *l == "baseline" || *l == "restricted") {
        return Err(Text::new("action.host-port.pod_security")
            .with("namespace", &target.target.namespace)
            .with("level", level));
    }
    // Cilium and Calico eBPF bring their own host ports or none; portmap is not to be relied on there.
    if facts.proxy.kind == proxy::Kind::Replaced {
        return Err(Text::new("action.host-port.no_portmap"));
    }
    let spec = deployment.spec.as_ref();
    let replicas = spec.and_then(|s| s.replicas).unwrap_or(1);
    if replicas > 1 {
        return Err(Text::new("action.host-port.replicas").with("replicas", replicas));
    }
    if spec.and_then(|s| s.template.spec.as_ref()?.host_network) == Some(true) {
        return Err(Text::new("action.host-port.host_network"));
    }
    let taken = objects
        .pods
        .iter()
        .filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node))
        .find(|p| holds(pod::containers(p), wanted));
    match taken {
        Some(pod) => Err(Text::new("action.host-port.taken")
            .with("port", wanted)
            .with("pod", pod.metadata.name.as_deref().unwrap_or_default())),
        None => Ok(()),
    }
}

fn holds(containers: &[Container], wanted: u16) -> bool {
    containers.iter().flat_map(|c| c.ports.iter().flatten()).any(|p| p.host_port == Some(i32::from(wanted)))
}

/// hostPort on the container port behind the Service; a port entry is added where the pod declares none.
fn port_change(target: &TargetFacts<'_>, deployment: &Deployment, wanted: u16) -> Result<Change, Text> {
    let unknown = || Text::new("action.host-port.no_port");
    let spec = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref()).ok_or_else(unknown)?;
    let target_port = service(target)?.target_port().ok_or_else(unknown)?;
    let container_port = target_port::resolve(spec, &target_port).ok_or_else(unknown)?;
    let declared = spec.containers.iter().enumerate().find_map(|(c, container)| {
        let ports = container.ports.as_deref().unwrap_or_default();
        ports.iter().position(|p| p.container_port == i32::from(container_port)).map(|p| (c, p, &ports[p]))
    });
    match declared {
        Some((_, _, port)) if port.host_port == Some(i32::from(wanted)) => {
            Err(Text::new("plan.cannot.nothing_to_change")
                .with("object", format!("deployment/{}", deployment.metadata.name.as_deref().unwrap_or_default())))
        }
        Some((_, _, port)) if port.host_port.is_some() => {
            Err(Text::new("action.host-port.other").with("port", port.host_port.unwrap_or_default()))
        }
        Some((container, index, _)) => Ok(Change {
            path: format!("{POD_SPEC}/containers/{container}/ports/{index}/hostPort"),
            from: None,
            to: Some(Value::from(wanted)),
        }),
        None => Ok(declare(spec.containers.first().ok_or_else(unknown)?, container_port, wanted)),
    }
}

/// Adds the port to the first container, which is the application's by convention.
fn declare(container: &v1::Container, container_port: u16, wanted: u16) -> Change {
    let mut ports: Vec<Value> = container.ports.iter().flatten().map(as_json).collect();
    ports.push(json!({"containerPort": container_port, "hostPort": wanted, "protocol": "TCP"}));
    Change {
        path: format!("{POD_SPEC}/containers/0/ports"),
        from: container.ports.as_ref().filter(|p| !p.is_empty()).map(as_json),
        to: Some(Value::Array(ports)),
    }
}

/// A rolling update of one pod with a hostPort on one node never ends: the new pod waits for the old one's port.
fn recreate(deployment: &Deployment) -> Option<Change> {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return None;
    }
    Some(Change {
        path: "/spec/strategy".to_owned(),
        from: strategy.map(as_json),
        to: Some(json!({"type": "Recreate"})),
    })
}
