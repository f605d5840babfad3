//! BA2101: the pods run, but none is ready.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2101),
    slug: "not-ready",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::MendWorkload],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.usable().next().is_none()) else { return Vec::new() };
    let waiting = |p: &&crate::model::pod::Pod| pod::is_running(p) && !pod::is_ready(p) && pod::trouble(p).is_none();
    // Behind a selector that matches nothing this is the next thing to break.
    let meant = service.meant_pods(&facts.index);
    let Some(sick) = service.live_pods().chain(meant.iter().copied()).find(waiting) else { return Vec::new() };
    let confidence = if meant.is_empty() { Confidence::Certain } else { Confidence::Likely };
    let name = pod::name(sick);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let (status, reason, message) = pod::condition(sick, "Ready").unwrap_or(("False", "", ""));
    let probe = unhealthy(facts, &target.target.namespace, name);
    let why = probe.or(Some(message).filter(|m| !m.is_empty())).unwrap_or(reason);
    let found = check.found(target, object.clone()).with("pod", name).with("why", why).severity(if target.settling {
        Severity::Warning
    } else {
        unless_it_answers(target)
    });
    let found = found.confidence(confidence);
    let condition = Evidence::Condition {
        object: object.clone(),
        condition: "Ready".to_owned(),
        status: status.to_owned(),
        message: message.to_owned(),
    };
    let found = found.because(condition);
    vec![match probe {
        Some(line) => found.because(Evidence::Log { object, line: line.to_owned() }),
        None => found,
    }]
}

/// What the kubelet last said of a failing readiness probe.
fn unhealthy<'a>(facts: &Facts<'a>, namespace: &str, pod: &str) -> Option<&'a str> {
    let events = facts.index.events(namespace, pod).iter().filter(|e| {
        e.reason.as_deref() == Some("Unhealthy") && e.message.as_deref().is_some_and(|m| m.starts_with("Readiness"))
    });
    events.max_by_key(|e| (e.last_timestamp.clone().map(|t| t.0), e.metadata.name.clone()))?.message.as_deref()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn unready(created: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["metadata"]["creationTimestamp"] = json!(created);
        *sample.objects("events") = json!([{"metadata": {"name": "e1", "namespace": "bookinfo"}, "reason": "Unhealthy",
            "type": "Warning", "message": "Readiness probe failed: HTTP probe failed with statuscode: 503",
            "involvedObject": {"kind": "Pod", "namespace": "bookinfo", "name": "productpage-v1-7d8c-abcde"}}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn pods_that_a_wrong_selector_misses_are_told_behind_it() {
        let mut sample = unready("2026-11-23T11:00:00Z");
        sample.service()["spec"]["selector"] = json!({"app": "productpag"});
        *sample.objects("endpointSlices") = json!([]);
        assert_eq!(sample.said(), [(1201, Severity::Error), (2101, Severity::Error)]);
        assert_eq!(sample.finding(2101).confidence, crate::model::Confidence::Likely);
    }

    #[test]
    fn the_probes_own_words_are_passed_on() {
        let sample = unready("2026-11-23T11:00:00Z");
        assert_eq!(sample.said(), [(2101, Severity::Error)]);
        assert!(sample.finding(2101).arg("why").contains("503"));
    }

    #[test]
    fn a_first_start_is_no_error() {
        assert_eq!(unready("2026-11-23T11:59:30Z").said(), [(2101, Severity::Warning)]);
    }
}
