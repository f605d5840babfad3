//! Takes a step back: looks first at what stands, so that one that never ran is no error, and one that someone else
//! changed since is left alone.

use kube::api::ListParams;
use serde_json::Value;

use super::executor::{Forwarder, MARK, WAKE, mark, on_node};
use super::history::{Entry, Progress};
use super::kube::{FIELD_MANAGER, MANAGED_BY, Writer, conflict, text};
use super::{Error, node, rollout};
use crate::model::{Act, Change, ObjectRef};
use crate::plan::patch::{self, Mismatch};

/// Takes back whatever is in place of a step of this fix.
pub(super) async fn take_back(
    writer: &Writer,
    fix: &str,
    entry: &Entry,
    forwarder: &dyn Forwarder,
) -> Result<(), Error> {
    match &entry.step.act {
        Act::Patch { object, uid, changes } => put_back(writer, object, uid, changes).await.map(drop),
        Act::Configure { object, uid, changes, daemon_set, .. } => {
            let was_in_place = put_back(writer, object, uid, changes).await?;
            // Cut off between the two, the old text stands and the pods have yet to read it.
            if was_in_place || entry.progress >= Progress::Done {
                rollout::restart_pods(writer, daemon_set).await?;
            }
            Ok(())
        }
        Act::Create { object, manifest, .. } => {
            let mark = mark(fix, entry.seq);
            unmake(writer, object, manifest, |o| is_of(o, entry.uid.as_deref(), &mark)).await
        }
        Act::Wake { namespace } => sweep(writer, namespace).await,
        Act::Forward { namespace, service, .. } => {
            let id = entry.forward.as_deref();
            forwarder.stop(namespace, service, id).await.map_err(|message| Error::Forward { message })
        }
        Act::Node { settings, .. } => on_node(settings, node::take_back).await,
        Act::DeletePod { .. } | Act::Tell => Ok(()),
    }
}

/// Writes the old values back; whether the new ones were in place.
async fn put_back(writer: &Writer, object: &ObjectRef, uid: &str, changes: &[Change]) -> Result<bool, Error> {
    let current = writer.read(object).await?;
    // Of an object that is gone, or made anew since, nothing of ours is left.
    let Some(current) = current.filter(|c| uid.is_empty() || text(c, "/metadata/uid") == uid) else {
        return Ok(false);
    };
    let inverse = patch::inverse(changes);
    match patch::mismatch(&current, &inverse) {
        None => {
            writer.patch(object, uid, &inverse, true).await?;
            writer.patch(object, uid, &inverse, false).await?;
            Ok(true)
        }
        Some(_) if patch::mismatch(&current, changes).is_none() => Ok(false),
        Some(found) => Err(conflict(object, found)),
    }
}

/// Deletes a created object, unless it is another's or another changed it.
async fn unmake(
    writer: &Writer,
    object: &ObjectRef,
    manifest: &Value,
    is_ours: impl Fn(&Value) -> bool,
) -> Result<(), Error> {
    let Some(current) = writer.read(object).await?.filter(is_ours) else { return Ok(()) };
    match patch::lacking("", manifest, Some(&current)).or_else(|| changed_by_another(&current)) {
        Some(found) => Err(conflict(object, found)),
        None => writer.delete_as_read(object, &current).await,
    }
}

/// By its uid; where that was not written down any more, by the mark it was created with.
fn is_of(object: &Value, uid: Option<&str>, mark: &str) -> bool {
    let annotation = || object.pointer("/metadata/annotations")?.get(MARK)?.as_str();
    match uid {
        Some(uid) => text(object, "/metadata/uid") == uid,
        None => annotation() == Some(mark),
    }
}

/// Someone else owns a field of the object itself; controllers write its status only.
fn changed_by_another(object: &Value) -> Option<Mismatch> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let of_object = entries.into_iter().flatten().filter(|e| text(e, "/subresource").is_empty());
    let other = of_object.map(|e| text(e, "/manager")).find(|m| *m != FIELD_MANAGER)?;
    Some(Mismatch {
        path: "/metadata/managedFields".to_owned(),
        expected: Some(Value::from(FIELD_MANAGER)),
        found: Some(Value::from(other)),
    })
}

/// Deletes the throw-away Services that a killed run left.
async fn sweep(writer: &Writer, namespace: &str) -> Result<(), Error> {
    let by = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    for service in writer.list("Service", Some(namespace), &by).await? {
        let name = text(&service, "/metadata/name");
        if name.starts_with(WAKE) {
            let object = ObjectRef::namespaced("Service", namespace, name);
            writer.delete(&object, Some(text(&service, "/metadata/uid")), false).await?;
        }
    }
    Ok(())
}
