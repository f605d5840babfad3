//! BA8005: a rolling update waits for itself: the new pod needs the port of the node that the old one still has.

use crate::check::{Check, Hop, field, host_port, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(8005),
    slug: "host-port-deadlock",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::Deployments],
    either: &[],
    remedies: &[],
    explains: &[Code(2002), Code(8003)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(waiting) = host_port::waiting(facts, target, true) else { return Vec::new() };
    let (Some(service), Some(holder)) = (&target.service, waiting.holder) else { return Vec::new() };
    let Some(deployment) = service.deployment.filter(|_| service.deployment_matches) else { return Vec::new() };
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.type_.as_deref());
    if strategy.is_some_and(|s| s != "RollingUpdate") {
        return Vec::new();
    }
    let served = service.usable().next().is_some();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::namespaced("Deployment", &target.target.namespace, name);
    let of_pod = ObjectRef::namespaced("Pod", &target.target.namespace, pod::name(waiting.pod));
    let found = check
        .found(target, object.clone())
        .with("deployment", name)
        .with("host_port", waiting.port)
        .with("old", pod::name(holder))
        .with("new", pod::name(waiting.pod))
        // The old pod serves on.
        .severity(if served || target.settling { Severity::Warning } else { unless_it_answers(target) });
    let condition = Evidence::Condition {
        object: of_pod,
        condition: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        message: waiting.why.to_owned(),
    };
    vec![found.because(field(&object, "spec.strategy.type", "RollingUpdate")).because(condition)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn rolling(strategy: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.pod()["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(30080);
        let mut new = sample.pod().clone();
        new["metadata"]["name"] = json!("productpage-v1-9f8e-new");
        new["metadata"]["creationTimestamp"] = json!("2026-11-23T11:00:00Z");
        new["spec"]["nodeName"] = json!(null);
        new["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/2 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."}]});
        sample.add("pods", new);
        sample.deployment()["spec"]["strategy"] = json!({"type": strategy});
        sample
    }

    #[test]
    fn the_old_pod_serves_on_while_the_update_waits() {
        assert_eq!(rolling("RollingUpdate").said(), [(8005, Severity::Warning)]);
        assert_eq!(rolling("Recreate").said(), []);
    }
}
