//! BA2102: the containers are ready, but a readiness gate that somebody else must open is closed.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2102),
    slug: "readiness-gate",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(2101)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.usable().next().is_none()) else { return Vec::new() };
    let Some((sick, gate)) = service.live_pods().find_map(|p| Some((p, closed(p)?))) else { return Vec::new() };
    let name = pod::name(sick);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let (status, reason, message) = pod::condition(sick, gate).unwrap_or(("Unknown", "", ""));
    let found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("gate", gate)
        .with("why", if message.is_empty() { reason } else { message })
        .severity(if target.settling { Severity::Warning } else { unless_it_answers(target) });
    vec![found.because(Evidence::Condition {
        object,
        condition: gate.to_owned(),
        status: status.to_owned(),
        message: message.to_owned(),
    })]
}

/// The first gate that is not open, of a pod that would be ready but for it.
fn closed(pod: &Pod) -> Option<&str> {
    let is_true = |kind: &str| pod::condition(pod, kind).is_some_and(|(status, ..)| status == "True");
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let waits = is_true("ContainersReady") && !pod::is_ready(pod);
    gates.iter().map(|g| g.condition_type.as_str()).find(|g| waits && !is_true(g))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn gated(containers: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["spec"]["readinessGates"] = json!([{"conditionType": "example.com/registered"}]);
        sample.pod()["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            {"type": "ContainersReady", "status": containers}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_gate_is_named() {
        assert_eq!(gated("True").said(), [(2102, Severity::Error)]);
        assert_eq!(gated("True").finding(2102).arg("gate"), "example.com/registered");
    }

    #[test]
    fn an_application_that_is_not_ready_itself_comes_first() {
        assert_eq!(gated("False").said(), [(2101, Severity::Error)]);
    }
}
