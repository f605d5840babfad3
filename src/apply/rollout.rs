//! Waits until a changed workload runs as changed, and notices early where it never will.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::ListParams;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::kube::{Writer, text};
use crate::model::ObjectRef;

/// How often the workload is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A new pod may be unschedulable for so long, e.g. until the old one gave up its port.
const UNSCHEDULABLE: Duration = Duration::from_secs(10);

/// For all pods of a DaemonSet so long is waited.
const DAEMON_SET_LIMIT: Duration = Duration::from_secs(20);

/// Waiting reasons of a container that do not go away by themselves soon.
const HOPELESS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CrashLoopBackOff",
];

/// The pods of a workload before it is changed: trouble of theirs is not the change's.
pub async fn pods_before(writer: &Writer, object: &ObjectRef) -> Result<BTreeSet<String>, Error> {
    if !watched(object) {
        return Ok(BTreeSet::new());
    }
    let workload = writer.read(object).await?.unwrap_or_default();
    let pods = pods(writer, object, &workload).await.unwrap_or_default();
    Ok(pods.iter().map(|p| text(p, "/metadata/uid").to_owned()).collect())
}

/// Waits until the workload runs as its spec says. Other kinds need no waiting.
pub async fn wait(
    writer: &Writer,
    object: &ObjectRef,
    before: &BTreeSet<String>,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    if !watched(object) {
        return Ok(());
    }
    let start = Instant::now();
    let mut unschedulable: Option<Instant> = None;
    let failed = |reason: String| Err(Error::Rollout { object: object.clone(), reason });
    loop {
        let workload = writer.read(object).await?.ok_or_else(|| Error::Gone { object: object.clone() })?;
        if complete(&workload) {
            return Ok(());
        }
        let (hopeless, unplaced) = match pods(writer, object, &workload).await {
            Ok(pods) => trouble(&workload, &pods, before),
            // Without the right to see pods only the deadline speaks.
            Err(_) => (None, None),
        };
        if let Some(reason) = hopeless {
            return failed(reason);
        }
        match unplaced {
            Some(reason) if unschedulable.get_or_insert_with(Instant::now).elapsed() > UNSCHEDULABLE => {
                return failed(reason);
            }
            Some(_) => {}
            None => unschedulable = None,
        }
        // A DaemonSet is never complete while any node of the cluster is away: what counts is for the verification to say.
        if object.kind == "DaemonSet" && start.elapsed() > limit.min(DAEMON_SET_LIMIT) {
            return Ok(());
        }
        if start.elapsed() > limit {
            return failed(format!("not ready after {} s", limit.as_secs()));
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Interrupted),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Waits until the owner of a deleted pod runs another one, ready, on the same node.
pub async fn wait_replacement(
    writer: &Writer,
    pod: &Value,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let (node, uid) = (text(pod, "/spec/nodeName"), text(pod, "/metadata/uid"));
    let owner = text(pod, "/metadata/ownerReferences/0/uid");
    let object = ObjectRef::namespaced("Pod", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let by = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let start = Instant::now();
    loop {
        let pods = writer.list("Pod", object.namespace.as_deref(), &by).await?;
        let replaced = pods.iter().any(|p| {
            text(p, "/metadata/uid") != uid
                && text(p, "/metadata/ownerReferences/0/uid") == owner
                && condition(p, "Ready") == Some("True")
        });
        if replaced {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(Error::Rollout { object, reason: format!("no new pod after {} s", limit.as_secs()) });
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Interrupted),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Deletes the pods of a DaemonSet, so that each new one reads what stands now.
pub async fn restart_pods(writer: &Writer, daemon_set: &ObjectRef) -> Result<(), Error> {
    let Some(workload) = writer.read(daemon_set).await? else { return Ok(()) };
    let uid = text(&workload, "/metadata/uid");
    for pod in pods(writer, daemon_set, &workload).await? {
        if text(&pod, "/metadata/ownerReferences/0/uid") == uid {
            let object = ObjectRef::namespaced("Pod", daemon_set.namespace(), text(&pod, "/metadata/name"));
            writer.delete_pod(&object, text(&pod, "/metadata/uid"), false).await?;
        }
    }
    Ok(())
}

fn watched(object: &ObjectRef) -> bool {
    matches!(object.kind.as_str(), "Deployment" | "DaemonSet")
}

async fn pods(writer: &Writer, object: &ObjectRef, workload: &Value) -> Result<Vec<Value>, Error> {
    let labels: Vec<String> = workload
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    writer.list("Pod", object.namespace.as_deref(), &ListParams::default().labels(&labels.join(","))).await
}

/// As `kubectl rollout status` judges it.
fn complete(workload: &Value) -> bool {
    let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_i64);
    let status = |field: &str| number(&format!("/status/{field}")).unwrap_or(0);
    if status("observedGeneration") < number("/metadata/generation").unwrap_or(0) {
        return false;
    }
    match text(workload, "/kind") {
        "DaemonSet" => {
            let desired = status("desiredNumberScheduled");
            status("updatedNumberScheduled") == desired && status("numberAvailable") == desired
        }
        _ => {
            let desired = number("/spec/replicas").unwrap_or(1);
            status("updatedReplicas") == desired
                && status("replicas") == desired
                && status("availableReplicas") == desired
        }
    }
}

/// What keeps new pods from running for good, and what keeps them from being placed for now.
fn trouble(workload: &Value, pods: &[Value], before: &BTreeSet<String>) -> (Option<String>, Option<String>) {
    let conditions = workload.pointer("/status/conditions").and_then(Value::as_array);
    let refused =
        conditions.into_iter().flatten().find(|c| text(c, "/type") == "ReplicaFailure" && text(c, "/status") == "True");
    if let Some(refused) = refused {
        return (Some(text(refused, "/message").to_owned()), None);
    }
    let new = || pods.iter().filter(|p| !before.contains(text(p, "/metadata/uid")));
    let waiting = new().find_map(|pod| {
        let statuses = |list: &str| pod.pointer(&format!("/status/{list}")).and_then(Value::as_array);
        let all = statuses("containerStatuses").into_iter().chain(statuses("initContainerStatuses")).flatten();
        all.map(|s| (text(s, "/state/waiting/reason"), text(s, "/state/waiting/message")))
            .find(|(reason, _)| HOPELESS.contains(reason))
            .map(|(reason, message)| format!("{}: {reason} {message}", text(pod, "/metadata/name")))
    });
    let unplaced = new().find_map(|pod| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        conditions
            .into_iter()
            .flatten()
            .find(|c| text(c, "/type") == "PodScheduled" && text(c, "/status") == "False")
            .map(|c| format!("{}: {}", text(pod, "/metadata/name"), text(c, "/message")))
    });
    (waiting, unplaced)
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().find(|c| text(c, "/type") == kind).map(|c| text(c, "/status"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(observed: i64, updated: i64, all: i64, available: i64) -> Value {
        json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {
            "observedGeneration": observed, "updatedReplicas": updated, "replicas": all, "availableReplicas": available}})
    }

    #[test]
    fn complete_only_when_the_old_pods_are_gone_and_the_new_ones_serve() {
        assert!(complete(&deployment(2, 1, 1, 1)));
        assert!(!complete(&deployment(1, 1, 1, 1)));
        assert!(!complete(&deployment(2, 1, 2, 2)));
        assert!(!complete(&deployment(2, 1, 1, 0)));
        let set = |desired: i64, ready: i64| {
            json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": {"observedGeneration": 1,
                "desiredNumberScheduled": desired, "updatedNumberScheduled": desired, "numberAvailable": ready}})
        };
        assert!(complete(&set(3, 3)));
        assert!(!complete(&set(3, 2)));
    }

    #[test]
    fn only_new_pods_tell_of_trouble() {
        let pod = |uid: &str| {
            json!({"metadata": {"name": "p", "uid": uid}, "status": {"containerStatuses": [
                {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}})
        };
        let before = BTreeSet::from(["old".to_owned()]);
        assert_eq!(trouble(&json!({}), &[pod("old")], &before), (None, None));
        let (hopeless, _) = trouble(&json!({}), &[pod("new")], &before);
        assert_eq!(hopeless.as_deref(), Some("p: ImagePullBackOff no such image"));
        let refused = json!({"status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity"}]}});
        assert_eq!(trouble(&refused, &[], &before).0.as_deref(), Some("violates PodSecurity"));
    }
}
