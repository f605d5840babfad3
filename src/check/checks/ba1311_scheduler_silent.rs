//! BA1311: kube-scheduler does not run, so pods wait for a node without a word.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, leader, pod};
use crate::model::pod::Pod;
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1311),
    slug: "scheduler-silent",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::Leases],
    either: &[],
    // A component of the control plane: the text says where to look.
    remedies: &[],
    explains: &[],
    run,
};

/// A scheduler that runs says something of a pod within this many seconds.
const PATIENCE: i64 = 15;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(silence) = leader::silence(facts.snapshot, "kube-scheduler") else { return Vec::new() };
    let Some(service) = &target.service else { return Vec::new() };
    let unheard = |p: &&Pod| is_unheard(p) && pod::age(p, facts.now()).is_some_and(|age| age >= PATIENCE);
    let Some(waiting) = service.live_pods().find(unheard) else { return Vec::new() };
    let name = pod::name(waiting);
    let (lease, object) = (
        ObjectRef::namespaced("Lease", "kube-system", "kube-scheduler"),
        ObjectRef::namespaced("Pod", &target.target.namespace, name),
    );
    let holder = silence.lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
    let served = service.usable().next().is_some();
    let found = check
        .found(target, lease.clone())
        .with("pod", name)
        .with("seconds", silence.seconds)
        .with("holder", holder)
        .severity(if served { Severity::Warning } else { unless_it_answers(target) })
        .confidence(if silence.proven { Confidence::Certain } else { Confidence::Likely })
        .because(field(&lease, "spec.renewTime", silence.renewed.to_string()))
        .because(field(&object, "spec.nodeName", serde_json::Value::Null));
    vec![found.because_of(target.reach.failure())]
}

/// Without a node, and the scheduler has said nothing of it. A pod that names another scheduler is not this one's.
fn is_unheard(p: &Pod) -> bool {
    let scheduler = p.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
    pod::phase(p) == "Pending"
        && pod::node(p).is_none()
        && pod::condition(p, "PodScheduled").is_none()
        && scheduler.is_none_or(|s| s == "default-scheduler")
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn waiting() -> Sample {
        let mut sample = Sample::healthy();
        sample.0["objects"]["leases"] = json!([{"metadata": {"name": "kube-scheduler", "namespace": "kube-system"},
            "spec": {"renewTime": "2026-11-23T11:40:00.000000Z"}}]);
        sample.pod()["spec"]["nodeName"] = json!(null);
        sample.pod()["status"] = json!({"phase": "Pending"});
        sample.pod()["metadata"]["creationTimestamp"] = json!("2026-11-23T11:50:00Z");
        sample.objects("endpointSlices")[0]["endpoints"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn a_pod_that_nobody_places() {
        assert_eq!(waiting().said(), [(1311, Severity::Error)]);
    }

    #[test]
    fn the_scheduler_s_own_word_is_another_cause() {
        let mut sample = waiting();
        sample.pod()["status"]["conditions"] =
            json!([{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]);
        assert_eq!(sample.said(), [(2002, Severity::Error)]);
    }

    #[test]
    fn another_scheduler_has_no_lease_here() {
        let mut sample = waiting();
        sample.pod()["spec"]["schedulerName"] = json!("batch");
        assert_eq!(sample.said(), []);
    }
}
