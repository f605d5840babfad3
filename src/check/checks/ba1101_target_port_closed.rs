//! BA1101: nothing listens on the targetPort inside the pod.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Outcome, PortRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1101),
    slug: "target-port-closed",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[Input::PodProxy, Input::PortForward],
    remedies: &[ActionName::TargetPort],
    explains: &[Code(2302), Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed().filter(|s| s.is_sound()) else { return Vec::new() };
    let (Some(PortRef::Number(number)), Some((index, _))) = (service.target_port(), service.port) else {
        return Vec::new();
    };
    let declared = pod::declared_ports(&service.containers);
    // On the port that the pods themselves declare, the Service is right and the application is not.
    if declared.iter().any(|(_, p)| *p == number) {
        return Vec::new();
    }
    let undeclared = !declared.is_empty();
    let mut confidence = None;
    let mut telling = Vec::new();
    for name in service.usable().filter_map(|e| e.pod) {
        let young = |p| pod::name(p) == name && pod::is_warming(p, Some(number), facts.now());
        if service.live_pods().any(young) {
            return Vec::new();
        }
        let from_outside: Vec<_> = target.reach.to_pod(name).filter(|p| p.port == number).collect();
        let inside = target.reach.port_forward.iter().find(|p| p.pod.as_deref() == Some(name) && p.port == number);
        let refused = from_outside.iter().any(|p| p.outcome == Outcome::Refused);
        let sure = match inside.map(|p| &p.outcome) {
            Some(Outcome::Refused) if refused => Confidence::Certain,
            Some(Outcome::Refused) if from_outside.is_empty() => Confidence::Likely,
            // Containers need not declare their ports: a missing one is a hint, not a proof.
            None if refused && undeclared => Confidence::Likely,
            // One pod that listens acquits the targetPort.
            _ => return Vec::new(),
        };
        confidence = Some(confidence.map_or(sure, |c: Confidence| c.max(sure)));
        telling.extend(from_outside.into_iter().chain(inside.copied()));
    }
    let Some(confidence) = confidence else { return Vec::new() };
    let object = target.target.service_ref();
    let suggestion = service.likely_container_port().filter(|(_, p)| *p != number);
    let list: Vec<String> = declared.iter().map(|(_, p)| p.to_string()).collect();
    let found = check
        .found(target, object.clone())
        .with("target_port", number)
        .with("declared", list.join(", "))
        .with("suggestion", suggestion.map(|(_, p)| p.to_string()).unwrap_or_default())
        .severity(unless_it_answers(target))
        .confidence(confidence);
    vec![found.because(field(&object, format!("spec.ports[{index}].targetPort"), number)).because_of(telling)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn wrong_port() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"][0]["targetPort"] = json!(9999);
        sample.objects("endpointSlices")[0]["ports"][0]["port"] = json!(9999);
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!(["10.244.1.7:9999"]);
        for probe in sample.0["probes"].as_array_mut().into_iter().flatten() {
            if probe["port"] == json!(9080) {
                probe["port"] = json!(9999);
            }
        }
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, json!({"outcome": "refused"}));
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_declared_port_is_suggested() {
        let sample = wrong_port();
        assert_eq!(sample.said(), [(1101, Severity::Error)]);
        assert_eq!(sample.finding(1101).arg("suggestion"), "9080");
    }

    #[test]
    fn a_port_that_answers_undeclared_is_right() {
        let mut sample = wrong_port();
        let answer = json!({"outcome": "http", "status": 200, "right": true});
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, answer.clone());
        sample.answer(answer);
        assert_eq!(sample.said(), []);
    }
}
