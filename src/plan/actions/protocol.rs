//! Makes the page's Service port TCP.

use serde_json::Value;

use super::{arg, identify, patching, port, service};
use crate::facts::{Facts, TargetFacts, service};
use crate::model::{ActionName, Change, Finding, PortRef, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let facts_of = service(target)?;
    let (index, port) = port(target)?;
    let current = service::protocol(port);
    if current == "TCP" {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target));
    }
    // A port whose container really speaks another protocol is not the page's.
    let meant = facts_of.target_port().is_some_and(|to| {
        let leads = |p: &k8s_openapi::api::core::v1::ContainerPort| match &to {
            PortRef::Number(number) => p.container_port == i32::from(*number),
            PortRef::Name(name) => p.name.as_deref() == Some(name),
        };
        let mut declared = facts_of.containers.iter().flat_map(|c| c.ports.iter().flatten()).filter(|p| leads(p));
        declared.next().is_some_and(|p| p.protocol.as_deref().is_none_or(|p| p == "TCP")) && declared.next().is_none()
    });
    if !meant {
        return Err(Text::new("action.protocol.unclear").with("service", target.target).with("protocol", current));
    }
    let change = Change {
        path: format!("/spec/ports/{index}/protocol"),
        from: port.protocol.as_deref().map(Value::from),
        to: Some(Value::from("TCP")),
    };
    let object = identify("Service", &facts_of.service.metadata);
    let mut step = patching(ActionName::Protocol, Tier::T2, target, finding, object, vec![change], Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "from", current);
    Ok(step)
}
