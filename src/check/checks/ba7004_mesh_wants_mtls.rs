//! BA7004: Istio's proxy before the pod takes the connection and ends it: it wants mutual TLS, and a browser speaks plain HTTP.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

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
    let Some(service) = target.stuck() else { return Vec::new() };
    let reach = &target.reach;
    let ended = |p: &&Probe| matches!(p.outcome, Outcome::Reset | Outcome::Empty);
    let Some(arrived) = reach.decisive.iter().copied().find(ended) else { return Vec::new() };
    let Some(guarded) = service.usable().filter_map(|e| service.pod_of(e)).find(|p| pod::has_istio(p)) else {
        return Vec::new();
    };
    let name = pod::name(guarded);
    let to_pod: Vec<&Probe> = reach.to_pod(name).collect();
    let inside = reach.port_forward.iter().copied().find(|p| p.pod.as_deref() == Some(name));
    // An application that ends connections itself does so inside its pod as well, where no mesh stands between.
    let Some(inside) = inside.filter(|p| p.outcome.is_right() && to_pod.iter().all(ended)) else { return Vec::new() };
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("allow", permissive(target, service.selector(), arrived_at(&to_pod, service)));
    let proxy = field(&object, "spec.containers", "istio-proxy");
    vec![found.because(proxy).because_of([arrived]).because_of(to_pod).because_of([inside])]
}

fn arrived_at(to_pod: &[&Probe], service: &crate::facts::ServiceFacts<'_>) -> u16 {
    to_pod.first().map(|p| p.port).or_else(|| service.usable().find_map(|e| e.port)).unwrap_or_default()
}

/// The PeerAuthentication that lets plain HTTP in at this one port.
fn permissive(
    target: &TargetFacts<'_>,
    selector: Option<&std::collections::BTreeMap<String, String>>,
    port: u16,
) -> serde_json::Value {
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
