//! BA1303: session affinity keeps this client on a ready pod that fails, while another pod would answer.

use std::mem::discriminant;

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1303),
    slug: "affinity-to-failing-pod",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[Input::PodProxy, Input::NodeSettings],
    // The pod is what fails, and only its log says why; without affinity others answer too.
    remedies: &[ActionName::SessionAffinity],
    explains: &[Code(2306), Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed().filter(|s| s.is_sticky() && s.is_sound()) else { return Vec::new() };
    // Whom it keeps on which pod is chance: a dial that arrives speaks for this client alone.
    let arrived = target.reach.failure();
    let mut names: Vec<&str> = service.usable().filter_map(|e| e.pod).collect();
    names.sort_unstable();
    let asked = |pod: &str| target.reach.to_pod(pod).collect::<Vec<&Probe>>();
    let healthy = names.iter().find_map(|pod| asked(pod).into_iter().find(|p| p.outcome.is_right()));
    // What comes back along the way is what that very pod says.
    let alike = |outcome: &Outcome| match arrived {
        Some(arrived) => discriminant(outcome) == discriminant(&arrived.outcome),
        None => *outcome == Outcome::Refused,
    };
    let sick = names.iter().find_map(|pod| {
        let probes = asked(pod);
        let fails = !probes.iter().any(|p| p.outcome.is_right());
        probes.into_iter().find(|p| fails && alike(&p.outcome)).map(|probe| (*pod, probe))
    });
    let (Some(healthy), Some((pod, probe))) = (healthy, sick) else { return Vec::new() };
    let object = target.target.service_ref();
    let timeout = service.spec().and_then(|s| s.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds);
    let found = check
        .found(target, object.clone())
        .with("pod", pod)
        // The API's default is three hours.
        .with("seconds", timeout.unwrap_or(10_800));
    let found = found.because(field(&object, "spec.sessionAffinity", "ClientIP"));
    vec![found.because_of(arrived.into_iter().chain([probe, healthy]))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn two_replicas() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["sessionAffinity"] = json!("ClientIP");
        let second = json!({"addresses": ["10.244.1.9"], "nodeName": "w1", "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "productpage-v1-7d8c-zzzzz"}});
        if let Some(endpoints) = sample.objects("endpointSlices")[0]["endpoints"].as_array_mut() {
            endpoints.push(second);
        }
        let probe = json!({"vantage": "podProxy", "target": "bookinfo/productpage", "port": 9080, "millis": 2,
            "host": "bookinfo/productpage-v1-7d8c-zzzzz", "pod": "productpage-v1-7d8c-zzzzz", "outcome": "refused"});
        sample.probe(probe);
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!(["10.244.1.7:9080", "10.244.1.9:9080"]);
        sample
    }

    #[test]
    fn the_failing_replica_answers_as_the_node_port_does() {
        let mut sample = two_replicas();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1303, Severity::Error)]);
        assert_eq!(sample.finding(1303).arg("pod"), "productpage-v1-7d8c-zzzzz");
    }

    #[test]
    fn another_kind_of_failure_comes_from_elsewhere() {
        let mut sample = two_replicas();
        sample.answer(json!({"outcome": "timeout"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 1303));
    }

    #[test]
    fn without_affinity_the_next_connection_may_do() {
        let mut sample = two_replicas();
        sample.service()["spec"]["sessionAffinity"] = json!("None");
        sample.answer(json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 1303));
    }
}
