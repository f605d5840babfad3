//! Gives the Service type NodePort and the nodePort a browser expects.

use serde_json::Value;

use super::{arg, identify, node_port_owner, patching, port, service};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let name = target.target.to_string();
    let facts_of = service(target)?;
    let (service, kind) = (facts_of.service, facts_of.kind());
    if kind == "ExternalName" || facts_of.is_headless() {
        return Err(Text::new("action.service-node-port.impossible").with("service", name));
    }
    if !target.target.may_become_node_port() {
        return Err(Text::new("action.service-node-port.not_named").with("service", name));
    }
    let (index, port) = port(target)?;
    let mut changes = Vec::new();
    if kind == "ClusterIP" {
        changes.push(Change {
            path: "/spec/type".to_owned(),
            from: service.spec.as_ref().and_then(|s| s.type_.as_deref()).map(Value::from),
            to: Some(Value::from("NodePort")),
        });
    }
    if let Some(wanted) = target.target.node_port {
        if let Some(owner) = node_port_owner(facts, target, wanted) {
            return Err(Text::new("action.service-node-port.taken").with("port", wanted).with("owner", owner));
        }
        if port.node_port != Some(i32::from(wanted)) {
            changes.push(Change {
                path: format!("/spec/ports/{index}/nodePort"),
                from: port.node_port.map(Value::from),
                to: Some(Value::from(wanted)),
            });
        }
    }
    if changes.is_empty() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", name));
    }
    let object = identify("Service", &service.metadata);
    let mut step = patching(ActionName::ServiceNodePort, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", name);
    arg(&mut step, "from", port.node_port.map_or_else(|| kind.to_owned(), |p| format!("{kind} {p}")));
    arg(&mut step, "port", target.target.node_port.map_or_else(|| "-".to_owned(), |p| p.to_string()));
    Ok(step)
}
