//! BA2008: the container was killed for want of memory, or the pod was evicted from its node.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2008),
    slug: "out-of-memory-or-evicted",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(2002), Code(2004)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let spared = service.usable().next().is_some();
    let namespace = &target.target.namespace;
    let deployment = service.deployment.and_then(|d| d.metadata.name.as_deref()).unwrap_or_default();
    let severity = if spared { Severity::Warning } else { unless_it_answers(target) };
    if let Some((sick, status)) = service.live_pods().find_map(|p| Some((p, pod::out_of_memory(p)?))) {
        let object = ObjectRef::namespaced("Pod", namespace, pod::name(sick));
        let limit = memory_limit(sick, &status.name).unwrap_or_default();
        let found = check
            .found(target, object.clone())
            .with("pod", pod::name(sick))
            .with("deployment", deployment)
            .with("reason", "OOMKilled")
            .with("why", format!("{}: limits.memory={}", status.name, if limit.is_empty() { "-" } else { limit }));
        let state = Evidence::Container {
            object,
            container: status.name.clone(),
            reason: "OOMKilled".to_owned(),
            message: String::new(),
        };
        return vec![found.severity(severity).because(state)];
    }
    // An evicted pod stays in the list for long. It is the cause only while nothing has taken its place, or while what
    // should cannot be placed for the same reason.
    let pressed = |p: &Pod| pod::unschedulable(p).is_some_and(|why| why.contains("pressure"));
    if spared || !service.live_pods().all(pressed) {
        return Vec::new();
    }
    let evicted = |p: &&&Pod| pod::phase(p) == "Failed" && reason(p) == Some("Evicted");
    let latest =
        service.pods.iter().filter(evicted).max_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
    let Some(sick) = latest else { return Vec::new() };
    let why = sick.status.as_ref().and_then(|s| s.message.as_deref()).unwrap_or_default();
    let object = ObjectRef::namespaced("Pod", namespace, pod::name(sick));
    let found = check
        .found(target, object.clone())
        .with("pod", pod::name(sick))
        .with("deployment", deployment)
        .with("reason", "Evicted")
        .with("why", why)
        .severity(if target.settling { Severity::Warning } else { severity });
    let found = found.because(field(&object, "status.reason", "Evicted"));
    vec![if why.is_empty() { found } else { found.because(field(&object, "status.message", why)) }]
}

fn reason(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.reason.as_deref()
}

fn memory_limit<'p>(pod: &'p Pod, container: &str) -> Option<&'p str> {
    pod::containers(pod).iter().find(|c| c.name == container)?.resources.limits.memory.as_deref()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn killed() -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
        sample.pod()["status"]["containerStatuses"] = json!([{"name": "productpage", "image": "productpage:v1",
            "imageID": "", "ready": false, "restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_crash_loop_is_its_consequence() {
        assert_eq!(killed().said(), [(2008, Severity::Error)]);
        assert!(killed().finding(2008).arg("why").contains("16Mi"));
    }

    #[test]
    fn one_that_was_killed_once_and_serves_is_well() {
        let mut sample = Sample::healthy();
        sample.pod()["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        sample.pod()["status"]["containerStatuses"][0]["lastState"] =
            json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn an_evicted_pod_that_was_replaced_is_history() {
        let mut sample = Sample::healthy();
        let mut old = sample.pod().clone();
        old["metadata"]["name"] = json!("productpage-v1-7d8c-old");
        old["status"] =
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        sample.add("pods", old);
        assert_eq!(sample.said(), []);
        sample.objects("endpointSlices")[0]["endpoints"] = json!([]);
        if let Some(pods) = sample.objects("pods").as_array_mut() {
            pods.retain(|p| p["metadata"]["name"] != "productpage-v1-7d8c-abcde");
        }
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(2008, Severity::Error)]);
    }
}
