//! BA2302: the Service leads to the port that the pods declare, but nothing listens on it inside the pod.

use std::collections::BTreeSet;

use crate::check::{Check, Hop, listeners, unless_it_answers};
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
    remedies: &[ActionName::TargetPort, ActionName::MendWorkload],
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
        blamed.get_or_insert((sick, port, from_outside.into_iter().chain([*inside]).collect::<Vec<_>>()));
    }
    let Some((sick, port, telling)) = blamed else { return Vec::new() };
    let name = pod::name(sick);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let sockets = facts.sockets(sick);
    let open = sockets.into_iter().flatten().filter(|s| !s.ip().is_loopback());
    let open: BTreeSet<u16> = open.map(|s| s.port()).collect();
    let list: Vec<String> = open.iter().map(u16::to_string).collect();
    let found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("target_port", port)
        .with("listens", list.join(", "))
        // Of several ports nobody knows which is the page's.
        .with("suggestion", Some(list.join("")).filter(|_| list.len() == 1).unwrap_or_default())
        .severity(unless_it_answers(target));
    let found = sockets.into_iter().fold(found, |found, s| found.because(listeners(&object, s)));
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
    fn the_port_that_it_listens_on_is_suggested() {
        for (sockets, listens, suggestion) in [
            (json!(["0.0.0.0:9081"]), "9081", "9081"),
            (json!(["[::]:9081", "0.0.0.0:9081"]), "9081", "9081"),
            (json!(["0.0.0.0:9081", "127.0.0.1:15000"]), "9081", "9081"),
            (json!(["0.0.0.0:9081", "0.0.0.0:9090"]), "9081, 9090", "-"),
            (json!([]), "-", "-"),
        ] {
            let mut sample = deaf();
            sample.0["host"]["podSockets"] = json!({"bookinfo/productpage-v1-7d8c-abcde": sockets});
            assert_eq!(sample.said(), [(2302, Severity::Error)]);
            let found = sample.finding(2302);
            assert_eq!((found.arg("listens"), found.arg("suggestion")), (listens, suggestion), "{sockets}");
        }
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
