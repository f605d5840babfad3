//! BA2304: the application speaks TLS on the port, and a browser that dials http:// is turned away.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2304),
    slug: "speaks-tls",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[],
    remedies: &[],
    explains: &[Code(2305), Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck() else { return Vec::new() };
    let reach = &target.reach;
    let wants_tls = |p: &&Probe| p.outcome == Outcome::Tls;
    let arrived = reach.decisive.iter().copied().find(wants_tls);
    let from_pod: Vec<&Probe> = reach
        .pod_proxy
        .iter()
        .chain(&reach.node_to_pod)
        .chain(&reach.port_forward)
        .copied()
        .filter(wants_tls)
        .collect();
    // At the address alone it may be somebody else who answers.
    let sure = if from_pod.is_empty() { Confidence::Likely } else { Confidence::Certain };
    let (Some(arrived), Some(port)) = (arrived, service.usable().find_map(|e| e.port)) else { return Vec::new() };
    let object = match service.usable().find_map(|e| e.pod) {
        Some(pod) => ObjectRef::namespaced("Pod", &target.target.namespace, pod),
        None => target.target.service_ref(),
    };
    let found = check
        .found(target, object)
        .with("target_port", port)
        .with("url", format!("https://{}{}", target.authority().unwrap_or_default(), target.target.path))
        .confidence(sure);
    vec![found.because_of([arrived]).because_of(from_pod)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    #[test]
    fn the_address_with_https_is_named() {
        let mut sample = Sample::healthy();
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, json!({"outcome": "tls"}));
        sample.answer(json!({"outcome": "tls"}));
        assert_eq!(sample.said(), [(2304, Severity::Error)]);
        assert_eq!(sample.finding(2304).arg("url"), "https://203.0.113.10:30080/productpage");
        assert_eq!(sample.finding(2304).confidence, Confidence::Certain);
    }

    #[test]
    fn a_pod_that_speaks_http_is_not_to_blame_for_who_answers_at_the_address() {
        let mut sample = Sample::healthy();
        sample.answer(json!({"outcome": "notHttp"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 2304));
    }
}
