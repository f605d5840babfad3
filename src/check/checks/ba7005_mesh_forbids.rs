//! BA7005: Istio's proxy before the pod answers 403 in the application's stead: an AuthorizationPolicy forbids the request.

use crate::check::{Check, Hop, field, mesh};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

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
    let ended = |o: &Outcome| matches!(o, Outcome::Http { status: 403, right: false });
    let Some(stopped) = mesh::stopped(target, pod::has_istio, ended) else { return Vec::new() };
    let name = pod::name(stopped.pod);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let found = check.found(target, object.clone()).with("pod", name).with("path", &target.target.path);
    let proxy = field(&object, "spec.containers", "istio-proxy");
    vec![stopped.tell(found.because(proxy))]
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
