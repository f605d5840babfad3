//! Told: the source addresses that the Service admits. Whom to admit is for a person to say.

use super::{arg, identify, json, patch_command, service, told};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier};
use crate::plan::patch;

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?;
    let ranges = service.spec().and_then(|s| s.load_balancer_source_ranges.as_ref()).filter(|r| !r.is_empty());
    let ranges = ranges.ok_or_else(|| Text::new("plan.cannot.nothing_to_change").with("object", target.target))?;
    let path = "/spec/loadBalancerSourceRanges".to_owned();
    let changes = [Change { path, from: Some(json(ranges)), to: None }];
    let (object, _) = identify("Service", &service.service.metadata);
    let (command, undo) = (patch_command(&object, &changes), patch_command(&object, &patch::inverse(&changes)));
    let mut step = told(ActionName::SourceRanges, Tier::T2, target, finding, command, undo);
    arg(&mut step, "service", target.target);
    arg(&mut step, "ranges", ranges.join(", "));
    Ok(step)
}
