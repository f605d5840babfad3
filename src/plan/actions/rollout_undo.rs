//! Gives the Deployment its former pod template back, where the last revision is what does not come up.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::Value;

use super::{arg, deployment, identify, json, patching, service};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Change, Code, Finding, Step, Text, Tier, Verify};
use crate::plan::patch;

/// The annotation by which the Deployment controller numbers revisions.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The label that it adds to the pods of each revision.
const HASH: &str = "pod-template-hash";

/// The code of an image that cannot be had.
const IMAGE: Code = Code(2003);

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let deployment = deployment(target)?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let none = || Text::new("action.rollout-undo.none").with("deployment", name);
    let revisions = &facts.snapshot.objects.replica_sets;
    let (current, former, number) = last_two(deployment, revisions).ok_or_else(none)?;
    let sick = service(target)?.pods.iter().find(|p| pod::name(p) == finding.subject.name).ok_or_else(none)?;
    // A pod of an older revision fails for another reason.
    let owner = sick.metadata.owner_references.iter().flatten().map(|o| o.name.as_str());
    if !owner.into_iter().any(|o| Some(o) == current.metadata.name.as_deref()) {
        return Err(none());
    }
    let changes = changes(deployment, former).ok_or_else(none)?;
    let blamed =
        |c: &Change| finding.code != IMAGE || c.path.contains("/containers") || c.path.contains("/initContainers");
    let new = changes.iter().any(|c| !c.path.contains("/metadata/annotations") && blamed(c));
    if !new {
        return Err(none());
    }
    let object = identify("Deployment", &deployment.metadata);
    let mut step = patching(ActionName::RolloutUndo, Tier::T3, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "deployment", name);
    arg(&mut step, "revision", number);
    Ok(step)
}

/// The ReplicaSets of the current revision and of the one before it, with that one's number.
fn last_two<'s>(deployment: &Deployment, revisions: &'s [ReplicaSet]) -> Option<(&'s ReplicaSet, &'s ReplicaSet, u64)> {
    let uid = deployment.metadata.uid.as_deref()?;
    let number = |annotations: Option<&std::collections::BTreeMap<String, String>>| -> Option<u64> {
        annotations?.get(REVISION)?.parse().ok()
    };
    let owned = |s: &&ReplicaSet| s.metadata.owner_references.iter().flatten().any(|o| o.uid == uid);
    let mut known: Vec<(u64, &ReplicaSet)> =
        revisions.iter().filter(owned).filter_map(|s| Some((number(s.metadata.annotations.as_ref())?, s))).collect();
    known.sort_by_key(|(number, _)| *number);
    let now = number(deployment.metadata.annotations.as_ref())?;
    let at = known.iter().position(|(number, _)| *number == now)?;
    let (former, set) = known.get(at.checked_sub(1)?)?;
    Some((known[at].1, set, *former))
}

/// What leads from the template as it is to the former one, field by field.
fn changes(deployment: &Deployment, former: &ReplicaSet) -> Option<Vec<Change>> {
    let mut wanted = json(former.spec.as_ref()?.template.as_ref()?);
    if let Some(labels) = wanted.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    let mut current = json(&deployment.spec.as_ref()?.template);
    for template in [&mut wanted, &mut current] {
        if let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.remove("creationTimestamp");
        }
    }
    Some(patch::difference("/spec/template", &current, &wanted))
}
