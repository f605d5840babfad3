//! BA2002: no pod runs because none can be placed, made or started.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, ServiceFacts, TargetFacts, pod, service};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2002),
    slug: "pod-pending",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::Unpin, ActionName::Uncordon, ActionName::MendWorkload],
    explains: &[],
    run,
};

/// A pod that is placed may need this many seconds until its containers are made.
const PATIENCE: i64 = 60;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.usable().next().is_none()) else { return Vec::new() };
    let severity = if target.settling { Severity::Warning } else { unless_it_answers(target) };
    let namespace = &target.target.namespace;
    let pending = service.live_pods().find(|p| pod::phase(p) == "Pending" && pod::trouble(p).is_none());
    if let Some(pending) = pending {
        let name = pod::name(pending);
        let object = ObjectRef::namespaced("Pod", namespace, name);
        let found = check.found(target, object.clone()).with("object", name).severity(severity);
        if let Some(why) = pod::unschedulable(pending) {
            let condition = Evidence::Condition {
                object,
                condition: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                message: why.to_owned(),
            };
            return vec![found.with("why", why).because(condition)];
        }
        let waited = pod::age(pending, facts.now()).is_none_or(|age| age >= PATIENCE);
        let Some(why) = warning(facts, namespace, name).filter(|_| waited) else { return Vec::new() };
        let line = Evidence::Log { object, line: why.clone() };
        return vec![found.with("why", &why).because(line)];
    }
    // Quota or admission: the pods are not even made.
    let Some((name, why)) = forbidden(service) else { return Vec::new() };
    let object = ObjectRef::namespaced("Deployment", namespace, name);
    let found = check.found(target, object.clone()).with("object", name).with("why", why).severity(severity);
    let condition = Evidence::Condition {
        object,
        condition: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        message: why.to_owned(),
    };
    vec![found.because(condition)]
}

/// The last warning that the kubelet or a controller gave about a pod.
fn warning(facts: &Facts<'_>, namespace: &str, pod: &str) -> Option<String> {
    let events = facts.index.events(namespace, pod).iter().filter(|e| e.type_.as_deref() == Some("Warning"));
    let last = events.max_by_key(|e| (e.last_timestamp.clone().map(|t| t.0), e.metadata.name.clone()))?;
    Some(format!("{}: {}", last.reason.as_deref()?, last.message.as_deref().unwrap_or_default()))
}

fn forbidden<'a>(facts: &ServiceFacts<'a>) -> Option<(&'a str, &'a str)> {
    let deployment = facts.deployment.filter(|d| facts.deployment_matches && service::replicas(d) > 0)?;
    facts.live_pods().next().is_none().then_some(())?;
    Some((deployment.metadata.name.as_deref()?, service::replica_failure(deployment)?))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn pending(created: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["metadata"]["creationTimestamp"] = json!(created);
        sample.pod()["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient cpu."}]});
        sample.objects("endpointSlices")[0]["endpoints"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_schedulers_word_is_passed_on() {
        let sample = pending("2026-11-23T11:00:00Z");
        assert_eq!(sample.said(), [(2002, Severity::Error)]);
        assert!(sample.finding(2002).arg("why").contains("Insufficient cpu"));
    }

    #[test]
    fn the_first_seconds_are_no_error() {
        assert_eq!(pending("2026-11-23T11:59:55Z").said(), [(2002, Severity::Warning)]);
    }
}
