//! Creates a NodePort Service beside one that cannot become one itself: same pods, the nodePort that browsers dial.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::selector::by_application;
use super::{arg, creating, node_port_owner, service};
use crate::facts::service::{MANAGED_BY, matches, sibling_name, template_labels};
use crate::facts::{Facts, ServiceFacts, TargetFacts};
use crate::model::{ActionName, Finding, ObjectRef, PortRef, Step, Text, Tier};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unclear = || Text::new("action.sibling-service.unclear").with("service", target.target);
    let service = service(target)?;
    if !target.target.may_become_node_port() {
        return Err(Text::new("action.service-node-port.not_named").with("service", target.target));
    }
    let wanted = target.target.node_port.ok_or_else(unclear)?;
    if let Some(owner) = node_port_owner(facts, target, wanted) {
        return Err(Text::new("action.service-node-port.taken").with("port", wanted).with("owner", owner));
    }
    let name = sibling_name(&target.target.service);
    let taken = facts.snapshot.objects.services.iter().any(|s| {
        s.metadata.name.as_deref() == Some(&name) && s.metadata.namespace.as_deref() == Some(&target.target.namespace)
    });
    if taken {
        return Err(Text::new("action.sibling-service.exists").with("service", name));
    }
    let selector = pods(service).ok_or_else(unclear)?;
    let port = page_port(service, wanted).ok_or_else(unclear)?;
    let (object, manifest) = manifest(target, &name, &selector, json!([port]));
    let mut step = creating(ActionName::SiblingService, Tier::T1, target, finding, object, manifest, None);
    arg(&mut step, "service", target.target);
    arg(&mut step, "sibling", name);
    arg(&mut step, "port", wanted);
    Ok(step)
}

/// What the Service selects; an alias of a name elsewhere selects nothing, and its Deployment's pods are meant.
fn pods(service: &ServiceFacts<'_>) -> Option<BTreeMap<String, String>> {
    if let Some(own) = service.selector().filter(|s| !s.is_empty()) {
        return Some(own.clone());
    }
    let deployment = service.deployment.filter(|_| service.kind() == "ExternalName")?;
    by_application(deployment).filter(|labels| matches(Some(labels), template_labels(deployment)))
}

/// The page's port as the Service has it, else as its pods declare it.
fn page_port(service: &ServiceFacts<'_>, node_port: u16) -> Option<Value> {
    let declared = service.likely_container_port().map(|(_, port)| PortRef::Number(port));
    let (name, number, to) = match service.port {
        // An alias's port says nothing of the pods.
        Some((_, port)) if service.kind() != "ExternalName" => {
            (port.name.clone(), u16::try_from(port.port).ok()?, service.target_port()?)
        }
        _ => match declared? {
            PortRef::Number(port) => (None, port, PortRef::Number(port)),
            PortRef::Name(_) => return None,
        },
    };
    let mut port = json!({"port": number, "targetPort": super::json(&to), "protocol": "TCP", "nodePort": node_port});
    if let Some(name) = name {
        port["name"] = Value::from(name);
    }
    Some(port)
}

/// A NodePort Service of this name with these pods and ports, marked as made by this program.
pub(super) fn manifest(
    target: &TargetFacts<'_>,
    name: &str,
    selector: &BTreeMap<String, String>,
    ports: Value,
) -> (ObjectRef, Value) {
    let namespace = &target.target.namespace;
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {"type": "NodePort", "selector": selector, "ports": ports},
    });
    (ObjectRef::namespaced("Service", namespace, name), manifest)
}
