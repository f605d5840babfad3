//! Scales a Deployment of zero replicas to one.

use serde_json::Value;

use super::{arg, deployment, identify, patching};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let deployment = deployment(target)?;
    let name = deployment.metadata.name.clone().unwrap_or_default();
    if deployment.spec.as_ref().and_then(|s| s.replicas) != Some(0) {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", format!("deployment/{name}")));
    }
    let object = identify("Deployment", &deployment.metadata);
    let namespace = object.0.namespace().to_owned();
    let change = Change { path: "/spec/replicas".to_owned(), from: Some(Value::from(0)), to: Some(Value::from(1)) };
    let mut step = patching(ActionName::Scale, Tier::T3, target, finding, object, vec![change], Verify::Cleared);
    step.command = format!("kubectl -n {namespace} scale deployment {name} --replicas=1");
    step.undo = format!("kubectl -n {namespace} scale deployment {name} --replicas=0");
    arg(&mut step, "deployment", name);
    Ok(step)
}
