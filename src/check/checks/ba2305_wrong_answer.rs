//! BA2305: the application answers, but not with the page that is expected.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

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
    let reach = &target.reach;
    let service = if reach.own_error { target.exposed() } else { target.stuck() };
    let Some((service, pod)) = service.and_then(|s| Some((s, s.usable().find_map(|e| e.pod)?))) else {
        return Vec::new();
    };
    // The way is open: what comes back along it is what the pod itself says.
    let Some((arrived, from_pod)) = reach.own_answer(service) else { return Vec::new() };
    let status = match arrived.outcome {
        Outcome::Http { status, .. } => format!("HTTP {status}"),
        _ => String::new(),
    };
    let found = check
        .found(target, ObjectRef::namespaced("Pod", &target.target.namespace, pod))
        .with("pod", pod)
        .with("status", status)
        .with("path", &target.target.path)
        .severity(if reach.own_error { Severity::Warning } else { Severity::Error });
    vec![found.because_of([arrived]).because_of(from_pod)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn the_way_to_an_application_that_fails_is_open() {
        for (status, severity, answers) in [(500, Severity::Warning, true), (404, Severity::Error, false)] {
            let mut sample = Sample::healthy();
            let broken = json!({"outcome": "http", "status": status, "right": false});
            sample.probes(&["podProxy", "nodeToPod", "portForward"], None, broken.clone());
            sample.answer(broken);
            assert_eq!(sample.said(), [(2305, severity)]);
            assert_eq!(sample.with_facts(|facts| facts.targets[0].reach.answers), Some(answers));
        }
    }

    #[test]
    fn another_application_on_the_port_is_not_the_pods_fault() {
        let mut sample = Sample::healthy();
        sample.answer(json!({"outcome": "http", "status": 404, "right": false}));
        assert!(sample.said().iter().all(|(code, _)| *code != 2305));
    }
}
