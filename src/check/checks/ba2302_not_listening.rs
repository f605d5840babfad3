//! BA2302: the Service leads to the port that the pods declare, but nothing listens on it inside the pod.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2302),
    slug: "not-listening",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::PortForward],
    either: &[Input::PodProxy, Input::NodeSettings],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed().filter(|s| s.is_sound()) else { return Vec::new() };
    let mut blamed = None;
    for endpoint in service.usable() {
        let (Some(port), Some(sick)) = (endpoint.port, service.pod_of(endpoint)) else { return Vec::new() };
        let name = pod::name(sick);
        let from_outside: Vec<_> = target.reach.to_pod(name).filter(|p| p.port == port).collect();
        let inside = target.reach.port_forward.iter().find(|p| p.pod.as_deref() == Some(name) && p.port == port);
        // Only some of many pods are probed.
        if from_outside.is_empty() && inside.is_none() {
            continue;
        }
        let deaf = |o: &Outcome| *o == Outcome::Refused;
        let outside = !from_outside.is_empty() && from_outside.iter().all(|p| deaf(&p.outcome));
        // Both ways: an application on loopback refuses on the one, one on the pod's address alone on the other. One
        // pod that listens, or that is out of reach, acquits them all.
        let Some(inside) = inside.filter(|p| outside && deaf(&p.outcome)) else { return Vec::new() };
        if pod::is_warming(sick, Some(port), facts.now()) {
            return Vec::new();
        }
        blamed.get_or_insert((name, port, from_outside.into_iter().chain([*inside]).collect::<Vec<_>>()));
    }
    let Some((name, port, telling)) = blamed else { return Vec::new() };
    let found = check
        .found(target, ObjectRef::namespaced("Pod", &target.target.namespace, name))
        .with("pod", name)
        .with("target_port", port)
        .severity(unless_it_answers(target));
    vec![found.because_of(telling)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn deaf() -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, json!({"outcome": "refused"}));
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_service_is_right_and_the_application_is_deaf() {
        assert_eq!(deaf().said(), [(2302, Severity::Error)]);
        let mut sample = deaf();
        sample.blind("portForward");
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn by_its_name_the_port_is_right_as_well() {
        let mut sample = deaf();
        sample.service()["spec"]["ports"][0]["targetPort"] = json!("http");
        assert_eq!(sample.said(), [(2302, Severity::Error)]);
    }

    #[test]
    fn on_a_port_that_no_container_declares_the_service_is_wrong() {
        let mut sample = deaf();
        sample.pod()["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080}]);
        assert_eq!(sample.said(), [(1101, Severity::Error)]);
    }
}
