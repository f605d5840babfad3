//! What a step would make of a Snapshot: for proofs about plans, and for showing them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::patch::{self, Mismatch};
use crate::model::{Act, Change, ObjectRef, Objects, Snapshot, Step};

/// Makes a step's changes to the objects of the Snapshot. Other acts change no object that a Snapshot holds.
///
/// # Errors
/// The first field that does not hold its old value; an object that is not there has no field at all.
pub fn simulate(snapshot: &mut Snapshot, step: &Step) -> Result<(), Mismatch> {
    match &step.act {
        Act::Patch { object, changes, .. } | Act::Configure { object, changes, .. } => {
            patched(&mut snapshot.objects, object, changes)
        }
        Act::Create { object, manifest, .. } => {
            create(&mut snapshot.objects, object, manifest);
            Ok(())
        }
        Act::Wake { .. } | Act::DeletePod { .. } | Act::Forward { .. } | Act::Node { .. } | Act::Tell => Ok(()),
    }
}

/// Takes a step back that was simulated.
///
/// # Errors
/// The first field that is not as the step left it.
pub fn take_back(snapshot: &mut Snapshot, step: &Step) -> Result<(), Mismatch> {
    match &step.act {
        Act::Create { object, .. } => {
            let objects = &mut snapshot.objects;
            match object.kind.as_str() {
                "Service" => objects.services.retain(|o| !is_named(&o.metadata, object)),
                "NetworkPolicy" => objects.network_policies.retain(|o| !is_named(&o.metadata, object)),
                _ => {}
            }
            Ok(())
        }
        _ => simulate(snapshot, &inverse(step)),
    }
}

/// The step that takes this one back by changing fields; one that creates is taken back by deleting.
#[must_use]
pub fn inverse(step: &Step) -> Step {
    let mut inverse = step.clone();
    if let Act::Patch { changes, .. } | Act::Configure { changes, .. } = &mut inverse.act {
        *changes = patch::inverse(changes);
    }
    std::mem::swap(&mut inverse.command, &mut inverse.undo);
    inverse
}

fn patched(objects: &mut Objects, object: &ObjectRef, changes: &[Change]) -> Result<(), Mismatch> {
    match object.kind.as_str() {
        "Service" => change(&mut objects.services, |o| &o.metadata, object, changes),
        "Deployment" => change(&mut objects.deployments, |o| &o.metadata, object, changes),
        "DaemonSet" => change(&mut objects.daemon_sets, |o| &o.metadata, object, changes),
        "Endpoints" => change(&mut objects.endpoints, |o| &o.metadata, object, changes),
        "Node" => change(&mut objects.nodes, |o| &o.metadata, object, changes),
        "ConfigMap" => change(objects.kube_proxy_config.as_mut_slice(), |o| &o.metadata, object, changes),
        _ => Err(absent(changes)),
    }
}

fn create(objects: &mut Objects, object: &ObjectRef, manifest: &Value) {
    match object.kind.as_str() {
        "Service" => objects.services.extend(serde_json::from_value(manifest.clone())),
        "NetworkPolicy" => objects.network_policies.extend(serde_json::from_value(manifest.clone())),
        _ => {}
    }
}

fn absent(changes: &[Change]) -> Mismatch {
    let first = changes.first();
    Mismatch {
        path: first.map(|c| c.path.clone()).unwrap_or_default(),
        expected: first.and_then(|c| c.from.clone()),
        found: None,
    }
}

fn is_named(meta: &ObjectMeta, object: &ObjectRef) -> bool {
    meta.name.as_deref() == Some(object.name.as_str()) && meta.namespace == object.namespace
}

fn change<T: Serialize + DeserializeOwned>(
    list: &mut [T],
    meta: impl Fn(&T) -> &ObjectMeta,
    object: &ObjectRef,
    changes: &[Change],
) -> Result<(), Mismatch> {
    let item = list.iter_mut().find(|o| is_named(meta(o), object)).ok_or_else(|| absent(changes))?;
    let mut value = super::actions::json(item);
    patch::apply(&mut value, changes)?;
    *item = serde_json::from_value(value).map_err(|_| absent(changes))?;
    Ok(())
}
