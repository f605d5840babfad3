//! Sets externalTrafficPolicy to Cluster, so that every node leads to the pods.

use serde_json::Value;

use super::{arg, identify, patching, service};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let facts_of = service(target)?;
    let service = facts_of.service;
    if !facts_of.is_local() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target));
    }
    let mut changes = vec![Change {
        path: "/spec/externalTrafficPolicy".to_owned(),
        from: Some(Value::from("Local")),
        to: Some(Value::from("Cluster")),
    }];
    // A LoadBalancer with Local holds a health check port, which the API server takes away with the policy.
    if let Some(port) = service.spec.as_ref().and_then(|s| s.health_check_node_port).filter(|p| *p != 0) {
        changes.push(Change { path: "/spec/healthCheckNodePort".to_owned(), from: Some(Value::from(port)), to: None });
    }
    let object = identify("Service", &service.metadata);
    let mut step = patching(ActionName::TrafficPolicy, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", target.target);
    Ok(step)
}
