//! What a step would make of a Snapshot: for proofs about plans, and for showing them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::patch::{self, Mismatch};
use crate::model::{Act, Change, ObjectRef, Snapshot, Step};

/// Applies a step's patch to the Services, Deployments and DaemonSets of the Snapshot. Other acts change no field.
///
/// # Errors
/// The first field that does not hold its old value; an object that is not there has no field at all.
pub fn simulate(snapshot: &mut Snapshot, step: &Step) -> Result<(), Mismatch> {
    let Act::Patch { object, changes, .. } = &step.act else { return Ok(()) };
    let objects = &mut snapshot.objects;
    match object.kind.as_str() {
        "Service" => change(&mut objects.services, |o| &o.metadata, object, changes),
        "Deployment" => change(&mut objects.deployments, |o| &o.metadata, object, changes),
        "DaemonSet" => change(&mut objects.daemon_sets, |o| &o.metadata, object, changes),
        _ => Err(absent(changes)),
    }
}

/// The step that takes this one back.
#[must_use]
pub fn inverse(step: &Step) -> Step {
    let mut inverse = step.clone();
    if let Act::Patch { changes, .. } = &mut inverse.act {
        *changes = patch::inverse(changes);
    }
    std::mem::swap(&mut inverse.command, &mut inverse.undo);
    inverse
}

fn absent(changes: &[Change]) -> Mismatch {
    let first = changes.first();
    Mismatch {
        path: first.map(|c| c.path.clone()).unwrap_or_default(),
        expected: first.and_then(|c| c.from.clone()),
        found: None,
    }
}

fn change<T: Serialize + DeserializeOwned>(
    list: &mut [T],
    meta: impl Fn(&T) -> &ObjectMeta,
    object: &ObjectRef,
    changes: &[Change],
) -> Result<(), Mismatch> {
    let found = list.iter_mut().find(|o| {
        let meta = meta(o);
        meta.name.as_deref() == Some(object.name.as_str()) && meta.namespace == object.namespace
    });
    let item = found.ok_or_else(|| absent(changes))?;
    let mut value = super::actions::json(item);
    patch::apply(&mut value, changes)?;
    *item = serde_json::from_value(value).map_err(|_| absent(changes))?;
    Ok(())
}
