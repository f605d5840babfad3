//! BA2305: the application answers, but not with the page that is expected.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2305),
    slug: "wrong-answer",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[Input::PodProxy, Input::PortForward],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck() else { return Vec::new() };
    let reach = &target.reach;
    let strange = |p: &&Probe| matches!(p.outcome, Outcome::Http { right: false, .. } | Outcome::NotHttp);
    // The way is open: what comes back along it is what the pod itself says.
    let arrived = reach.decisive.iter().copied().find(strange);
    let from_pod: Vec<&Probe> =
        reach.pod_proxy.iter().chain(&reach.node_to_pod).chain(&reach.port_forward).copied().collect();
    let pods_agree = !from_pod.is_empty() && from_pod.iter().all(strange);
    let (Some(arrived), true, Some(pod)) = (arrived, pods_agree, service.usable().find_map(|e| e.pod)) else {
        return Vec::new();
    };
    // A mesh's proxy before the application may have answered in its stead: only past it the application is heard.
    if reach.port_forward.is_empty() && service.live_pods().any(pod::is_meshed) {
        return Vec::new();
    }
    let status = match arrived.outcome {
        Outcome::Http { status, .. } => format!("HTTP {status}"),
        _ => String::new(),
    };
    let found = check
        .found(target, ObjectRef::namespaced("Pod", &target.target.namespace, pod))
        .with("pod", pod)
        .with("status", status)
        .with("path", &target.target.path);
    vec![found.because_of([arrived]).because_of(from_pod)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn an_application_that_fails_is_named_as_such() {
        let mut sample = Sample::healthy();
        let broken = json!({"outcome": "http", "status": 500, "right": false});
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, broken.clone());
        sample.answer(broken);
        assert_eq!(sample.said(), [(2305, Severity::Error)]);
    }

    #[test]
    fn another_application_on_the_port_is_not_the_pods_fault() {
        let mut sample = Sample::healthy();
        sample.answer(json!({"outcome": "http", "status": 404, "right": false}));
        assert!(sample.said().iter().all(|(code, _)| *code != 2305));
    }
}
