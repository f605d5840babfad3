//! BA7004: Istio's proxy before the pod takes the connection and ends it: it wants mutual TLS, and a browser speaks plain HTTP.

use crate::check::{Check, Hop, field, mesh};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7004),
    slug: "mesh-wants-mtls",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::PortForward],
    either: &[],
    remedies: &[],
    explains: &[Code(2306), Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let ended = |o: &Outcome| matches!(o, Outcome::Reset | Outcome::Empty);
    let Some(stopped) = mesh::stopped(target, pod::has_istio, ended) else { return Vec::new() };
    let name = pod::name(stopped.pod);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let found = check.found(target, object.clone()).with("pod", name).with("allow", permissive(target, &stopped));
    let proxy = field(&object, "spec.containers", "istio-proxy");
    vec![stopped.tell(found.because(proxy))]
}

/// The PeerAuthentication that lets plain HTTP in at this one port.
fn permissive(target: &TargetFacts<'_>, stopped: &mesh::Stopped<'_>) -> serde_json::Value {
    let service = target.service.as_ref();
    let endpoint = || service.and_then(|s| s.usable().find_map(|e| e.port));
    let port = stopped.to_pod.first().map(|p| p.port).or_else(endpoint).unwrap_or_default();
    let selector = service.and_then(|s| s.selector());
    serde_json::json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": format!("{}-plain", target.target.service), "namespace": target.target.namespace},
        "spec": {
            "selector": {"matchLabels": selector},
            "mtls": {"mode": "STRICT"},
            "portLevelMtls": {port.to_string(): {"mode": "PERMISSIVE"}},
        },
    })
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn strict() -> Sample {
        let mut sample = Sample::healthy();
        if let Some(containers) = sample.pod()["spec"]["containers"].as_array_mut() {
            containers.push(json!({"name": "istio-proxy", "image": "proxyv2"}));
        }
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "reset"}));
        sample.answer(json!({"outcome": "reset"}));
        sample
    }

    #[test]
    fn past_the_proxy_the_page_answers() {
        assert_eq!(strict().said(), [(7004, Severity::Error)]);
        let mut sample = strict();
        sample.blind("portForward");
        assert!(sample.said().iter().all(|(code, _)| *code != 7004));
    }

    #[test]
    fn an_application_that_ends_connections_itself_is_not_the_meshs_matter() {
        let mut sample = strict();
        sample.probes(&["portForward"], None, json!({"outcome": "empty"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 7004));
        let mut sample = strict();
        if let Some(containers) = sample.pod()["spec"]["containers"].as_array_mut() {
            containers.pop();
        }
        assert!(sample.said().iter().all(|(code, _)| *code != 7004));
    }
}
