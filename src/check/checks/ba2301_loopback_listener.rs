//! BA2301: the application listens on the pod's loopback only.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2301),
    slug: "loopback-listener",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::Pods, Input::PortForward],
    either: &[],
    remedies: &[ActionName::OpenForward, ActionName::MendWorkload],
    // A readiness probe dials the pod IP and fails for the same reason.
    explains: &[Code(2101), Code(2306), Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    for sick in service.live_pods() {
        let name = pod::name(sick);
        for inside in target.reach.port_forward.iter().filter(|p| p.pod.as_deref() == Some(name)) {
            let from_outside: Vec<_> = target.reach.to_pod(name).filter(|p| p.port == inside.port).collect();
            let listens =
                matches!(inside.outcome, Outcome::Http { .. } | Outcome::NotHttp | Outcome::Tls | Outcome::Silent);
            let refused = from_outside.iter().any(|p| p.outcome == Outcome::Refused)
                && !from_outside.iter().any(|p| p.outcome.connected());
            if !listens || !refused {
                continue;
            }
            let found = check
                .found(target, ObjectRef::namespaced("Pod", &target.target.namespace, name))
                .with("pod", name)
                .with("target_port", inside.port)
                .severity(unless_it_answers(target))
                .confidence(if inside.outcome.is_right() { Confidence::Certain } else { Confidence::Likely });
            return vec![found.because_of([*inside]).because_of(from_outside)];
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn loopback() -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "refused"}));
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn inside_it_answers_and_from_outside_it_refuses() {
        assert_eq!(loopback().said(), [(2301, Severity::Error)]);
    }

    #[test]
    fn its_failing_readiness_probe_is_no_second_cause() {
        let mut sample = loopback();
        sample.unready();
        assert_eq!(sample.said(), [(2301, Severity::Error)]);
    }

    #[test]
    fn a_pod_that_is_out_of_reach_is_not_accused() {
        let mut sample = Sample::healthy();
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), []);
    }
}
