//! BA3022: this node's rules lead the nodePort to an address that belongs to another pod now, and that one answers.

use crate::check::stale::{Stale, stale};
use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3022),
    slug: "another-application",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::KubeProxy, Input::Rules],
    either: &[],
    remedies: &[ActionName::ScheduleKubeProxy, ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(2305), Code(3001), Code(3002), Code(3018), Code(3019)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(Stale { node, rule, gone }) = stale(facts, target) else { return Vec::new() };
    let Some(failure) = target.reach.failure().filter(|p| p.outcome.connected()) else { return Vec::new() };
    let holder = rule.backends.iter().find_map(|b| {
        let ip = b.ip().to_string();
        let holds = |p: &&crate::model::pod::Pod| {
            pod::is_live(p) && p.status.as_ref().and_then(|s| s.pod_ip.as_deref()) == Some(&ip)
        };
        let found = facts.snapshot.objects.pods.iter().filter(holds).min_by_key(|p| pod::name(p))?;
        Some((b, found))
    });
    let Some((backend, other)) = holder else { return Vec::new() };
    let object =
        ObjectRef::namespaced("Pod", other.metadata.namespace.as_deref().unwrap_or_default(), pod::name(other));
    let mut found = check
        .found(target, ObjectRef::cluster("Node", node))
        .with("node", node)
        .with("backend", backend)
        .with("other", format!("{}/{}", object.namespace(), object.name));
    if !gone {
        found = found.confidence(Confidence::Likely);
        found.remedies.retain(|r| *r != ActionName::ScheduleKubeProxy);
    }
    let ip = crate::check::field(&object, "status.podIP", backend.ip().to_string());
    let rule = Evidence::Rule { node: node.to_owned(), rule: rule.clone() };
    vec![found.because(rule).because(ip).because_of([failure])]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn astray(to: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!([to]);
        sample.answer(json!({"outcome": "http", "status": 404, "right": false}));
        sample
    }

    #[test]
    fn the_pod_that_answers_is_named() {
        let sample = astray("10.244.1.8:9080");
        assert_eq!(sample.said(), [(3022, Severity::Error)]);
        assert!(sample.finding(3022).arg("other").starts_with("bookinfo/details"));
    }

    #[test]
    fn an_address_that_nobody_is_known_to_hold_is_only_stale() {
        assert_eq!(astray("10.244.1.99:9080").said(), [(3019, Severity::Error)]);
    }
}
