//! BA2007: the pod's sandbox cannot be made, most often because the CNI on its node fails.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2007),
    slug: "no-sandbox",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::Events],
    either: &[],
    remedies: &[],
    explains: &[Code(2002)],
    run,
};

/// Once may be bad luck of a node that has only just started; the kubelet tries again every few seconds.
const PATIENCE: i64 = 20;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let namespace = &target.target.namespace;
    let waited = |p: &&crate::model::pod::Pod| {
        pod::phase(p) == "Pending" && pod::age(p, facts.now()).is_none_or(|age| age >= PATIENCE)
    };
    let told = |p| {
        let why = facts.last_event(namespace, pod::name(p), |reason, _| reason == "FailedCreatePodSandBox")?;
        Some((p, why))
    };
    let Some((sick, why)) = service.live_pods().filter(waited).find_map(told) else { return Vec::new() };
    let spared = service.usable().next().is_some() || target.settling;
    let object = ObjectRef::namespaced("Pod", namespace, pod::name(sick));
    let found = check
        .found(target, object.clone())
        .with("pod", pod::name(sick))
        .with("node", pod::node(sick).unwrap_or_default())
        .with("why", why)
        .severity(if spared { Severity::Warning } else { unless_it_answers(target) });
    vec![found.because(Evidence::Log { object, line: why.to_owned() })]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn without_sandbox(created: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["metadata"]["creationTimestamp"] = json!(created);
        sample.pod()["status"] =
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
        *sample.objects("events") = json!([{"metadata": {"name": "e1", "namespace": "bookinfo"}, "type": "Warning",
            "reason": "FailedCreatePodSandBox", "message": "plugin type=\"calico\" failed (add): connection refused",
            "involvedObject": {"kind": "Pod", "namespace": "bookinfo", "name": "productpage-v1-7d8c-abcde"}}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_kubelets_words_are_passed_on() {
        let sample = without_sandbox("2026-11-23T11:50:00Z");
        assert_eq!(sample.said(), [(2007, Severity::Error)]);
        assert!(sample.finding(2007).arg("why").contains("calico"));
    }

    #[test]
    fn a_first_failure_is_no_error() {
        assert_eq!(without_sandbox("2026-11-23T11:59:50Z").said(), []);
        assert_eq!(without_sandbox("2026-11-23T11:59:30Z").said(), [(2007, Severity::Warning)]);
    }
}
