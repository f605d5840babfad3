//! Sets sessionAffinity to None, so that a client is not kept on one pod that fails.

use serde_json::Value;

use super::{arg, identify, json, patching, service};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let facts_of = service(target)?;
    if !facts_of.is_sticky() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target));
    }
    let mut changes = vec![Change {
        path: "/spec/sessionAffinity".to_owned(),
        from: Some(Value::from("ClientIP")),
        to: Some(Value::from("None")),
    }];
    // The API server admits its configuration with ClientIP only.
    if let Some(config) = facts_of.spec().and_then(|s| s.session_affinity_config.as_ref()) {
        let path = "/spec/sessionAffinityConfig".to_owned();
        changes.push(Change { path, from: Some(json(config)), to: None });
    }
    let object = identify("Service", &facts_of.service.metadata);
    let mut step = patching(ActionName::SessionAffinity, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", target.target);
    Ok(step)
}
