//! BA2301: the application listens on the pod's loopback only.

use std::net::SocketAddr;

use crate::check::{Check, Hop, listeners, unless_it_answers};
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

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
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
            // Through the API one that listens on another family looks the same: only its sockets prove it.
            let sockets = facts.sockets(sick);
            let open = |s: &&SocketAddr| s.port() == inside.port && !s.ip().is_loopback();
            if sockets.into_iter().flatten().any(|s| open(&s)) {
                continue;
            }
            let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
            let found = check
                .found(target, object.clone())
                .with("pod", name)
                .with("target_port", inside.port)
                .severity(unless_it_answers(target))
                .confidence(if sockets.is_some() { Confidence::Certain } else { Confidence::Likely });
            let found = sockets.into_iter().fold(found, |found, s| found.because(listeners(&object, s)));
            return vec![found.because_of([*inside]).because_of(from_outside)];
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
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
    fn its_sockets_prove_it_or_acquit_it() {
        assert_eq!(loopback().finding(2301).confidence, Confidence::Likely);
        for (socket, expected) in [("127.0.0.1:9080", Some(2301)), ("[::1]:9080", Some(2301)), ("[::]:9080", None)] {
            let mut sample = loopback();
            sample.0["host"]["podSockets"] = json!({"bookinfo/productpage-v1-7d8c-abcde": [socket]});
            let found = sample.said().iter().map(|(code, _)| *code).find(|code| *code == 2301);
            assert_eq!(found, expected, "{socket}");
            if found.is_some() {
                assert_eq!(sample.finding(2301).confidence, Confidence::Certain);
            }
        }
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
