//! Takes away the label that keeps the cluster from making an EndpointSlice of Endpoints written by hand.

use super::{arg, identify, patching, without_key};
use crate::facts::service::SKIP_MIRROR;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let nothing = || Text::new("plan.cannot.nothing_to_change").with("object", target.target);
    let written = facts.snapshot.objects.endpoints.iter().find(|e| {
        e.metadata.name.as_deref() == Some(&target.target.service)
            && e.metadata.namespace.as_deref() == Some(&target.target.namespace)
    });
    let meta = &written.ok_or_else(nothing)?.metadata;
    let labels = meta.labels.as_ref().ok_or_else(nothing)?;
    let change = without_key("/metadata/labels", labels, SKIP_MIRROR).ok_or_else(nothing)?;
    let object = identify("Endpoints", meta);
    let (name, tier) = (ActionName::MirrorEndpoints, Tier::T2);
    let mut step = patching(name, tier, target, finding, object, vec![change], Verify::Cleared);
    arg(&mut step, "service", target.target);
    Ok(step)
}
