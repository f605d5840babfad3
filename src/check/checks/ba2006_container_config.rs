//! BA2006: a container cannot be made because a ConfigMap or Secret that it names is missing.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::pod::{self, TroubleKind};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2006),
    slug: "container-config",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(2002)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let namespace = &target.target.namespace;
    let refused = |p| Some((p, pod::trouble(p).filter(|t| t.kind == TroubleKind::Config)?));
    let spared = service.usable().next().is_some();
    let severity = if spared { Severity::Warning } else { unless_it_answers(target) };
    if let Some((sick, trouble)) = service.live_pods().find_map(refused) {
        let object = ObjectRef::namespaced("Pod", namespace, pod::name(sick));
        let found = check.found(target, object.clone()).with("pod", pod::name(sick)).with("why", trouble.message);
        let state = Evidence::Container {
            object,
            container: trouble.container.to_owned(),
            reason: trouble.reason.to_owned(),
            message: trouble.message.to_owned(),
        };
        return vec![found.severity(severity).because(state)];
    }
    // As a volume: the pod waits before any container is made, and only an event says for what.
    let waiting = service.live_pods().filter(|p| pod::phase(p) == "Pending");
    let told = |p| Some((p, facts.last_event(namespace, pod::name(p), is_missing)?));
    let Some((sick, why)) = waiting.filter_map(told).next() else { return Vec::new() };
    let object = ObjectRef::namespaced("Pod", namespace, pod::name(sick));
    let found = check.found(target, object.clone()).with("pod", pod::name(sick)).with("why", why);
    vec![found.severity(severity).because(Evidence::Log { object, line: why.to_owned() })]
}

/// The kubelet on a volume whose source is not there.
fn is_missing(reason: &str, message: &str) -> bool {
    let source = ["configmap", "secret"].iter().any(|kind| message.contains(kind));
    reason == "FailedMount" && source && message.contains("not found")
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::{Value, json};

    fn waiting(state: Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["status"]["phase"] = json!("Pending");
        sample.pod()["status"]["containerStatuses"] = json!([{"name": "productpage", "image": "productpage:v1",
            "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": state}}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_missing_object_is_named() {
        let why = "configmap \"productpage\" not found";
        let sample = waiting(json!({"reason": "CreateContainerConfigError", "message": why}));
        assert_eq!(sample.said(), [(2006, Severity::Error)]);
        assert_eq!(sample.finding(2006).arg("why"), why);
    }

    #[test]
    fn so_is_one_that_should_be_a_volume() {
        let mut sample = waiting(json!({"reason": "ContainerCreating"}));
        *sample.objects("events") = json!([{"metadata": {"name": "e1", "namespace": "bookinfo"}, "type": "Warning",
            "reason": "FailedMount", "message": "MountVolume.SetUp failed for volume \"tls\" : secret \"tls\" not found",
            "involvedObject": {"kind": "Pod", "namespace": "bookinfo", "name": "productpage-v1-7d8c-abcde"}}]);
        assert_eq!(sample.said(), [(2006, Severity::Error)]);
        sample.objects("events")[0]["message"] = json!("MountVolume.SetUp failed for volume \"data\" : timed out");
        assert_eq!(sample.said(), [(2002, Severity::Error)]);
    }
}
