//! BA2103: the pod counts as ready because nothing probes it, but its application has only just been started.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2103),
    slug: "still-starting",
    hop: Hop::Pod,
    severity: Severity::Warning,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[Input::PodProxy, Input::PortForward],
    remedies: &[],
    explains: &[Code(2302)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck() else { return Vec::new() };
    for endpoint in service.usable() {
        let Some(young) = service.pod_of(endpoint).filter(|p| pod::is_warming(p, endpoint.port, facts.now())) else {
            return Vec::new();
        };
        let name = pod::name(young);
        let inside = target.reach.port_forward.iter().copied().filter(|p| p.pod.as_deref() == Some(name));
        let probes: Vec<_> = target.reach.to_pod(name).chain(inside).collect();
        if probes.is_empty() || probes.iter().any(|p| p.outcome != Outcome::Refused) {
            continue;
        }
        let age = pod::running_for(young, facts.now()).unwrap_or_default();
        let found = check
            .found(target, ObjectRef::namespaced("Pod", &target.target.namespace, name))
            .with("pod", name)
            .with("seconds", age)
            .with("target_port", endpoint.port.map(|p| p.to_string()).unwrap_or_default());
        return vec![found.because_of(probes)];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn started(at: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.pod()["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": at}});
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, json!({"outcome": "refused"}));
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn it_is_given_time_and_waited_for() {
        let sample = started("2026-11-23T11:59:50Z");
        assert_eq!(sample.said(), [(2103, Severity::Warning)]);
        assert!(sample.with_facts(|facts| facts.targets[0].settling));
    }

    #[test]
    fn later_it_is_to_blame() {
        assert_eq!(started("2026-11-23T11:58:00Z").said(), [(2302, Severity::Error)]);
    }

    #[test]
    fn a_readiness_probe_that_passed_says_that_it_is_up() {
        let mut sample = started("2026-11-23T11:59:50Z");
        sample.pod()["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 9090}});
        assert_eq!(sample.said(), [(2302, Severity::Error)]);
    }
}
