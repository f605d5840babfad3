//! BA7005: Istio's proxy before the pod answers 403 in the application's stead: an AuthorizationPolicy forbids the request.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7005),
    slug: "mesh-forbids",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::PortForward],
    either: &[],
    remedies: &[],
    explains: &[Code(2305), Code(2306), Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck() else { return Vec::new() };
    let reach = &target.reach;
    let forbidden = |p: &&Probe| matches!(p.outcome, Outcome::Http { status: 403, right: false });
    let Some(arrived) = reach.decisive.iter().copied().find(forbidden) else { return Vec::new() };
    let Some(guarded) = service.usable().filter_map(|e| service.pod_of(e)).find(|p| pod::has_istio(p)) else {
        return Vec::new();
    };
    let name = pod::name(guarded);
    let to_pod: Vec<&Probe> = reach.to_pod(name).collect();
    let inside = reach.port_forward.iter().copied().find(|p| p.pod.as_deref() == Some(name));
    // Inside its pod, past the proxy, an application that forbids the request itself says 403 as well.
    let Some(inside) = inside.filter(|p| p.outcome.is_right() && to_pod.iter().all(forbidden)) else {
        return Vec::new();
    };
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let found = check.found(target, object.clone()).with("pod", name).with("path", &target.target.path);
    let proxy = field(&object, "spec.containers", "istio-proxy");
    vec![found.because(proxy).because_of([arrived]).because_of(to_pod).because_of([inside])]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn forbidden() -> Sample {
        let mut sample = Sample::healthy();
        sample.pod()["spec"]["initContainers"] =
            json!([{"name": "istio-proxy", "image": "proxyv2", "restartPolicy": "Always"}]);
        let answer = json!({"outcome": "http", "status": 403, "right": false});
        sample.probes(&["podProxy", "nodeToPod"], None, answer.clone());
        sample.answer(answer);
        sample
    }

    #[test]
    fn past_the_proxy_the_page_answers() {
        assert_eq!(forbidden().said(), [(7005, Severity::Error)]);
    }

    #[test]
    fn an_application_that_forbids_it_itself_is_named_as_such() {
        let mut sample = forbidden();
        sample.probes(&["portForward"], None, json!({"outcome": "http", "status": 403, "right": false}));
        assert_eq!(sample.said(), [(2305, Severity::Error)]);
    }
}
