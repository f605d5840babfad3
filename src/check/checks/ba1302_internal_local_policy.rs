//! BA1302: internalTrafficPolicy is Local, so pods of nodes without the page do not reach it. Browsers are not concerned.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1302),
    slug: "internal-local-policy",
    hop: Hop::Service,
    // It says nothing about the way in from outside, and is never its cause.
    severity: Severity::Info,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let policy = service.spec().and_then(|s| s.internal_traffic_policy.as_deref());
    if policy != Some("Local") || service.usable().next().is_none() {
        return Vec::new();
    }
    let with_page = |name: &str| service.usable().any(|e| e.node == Some(name));
    let nodes = facts.snapshot.objects.nodes.iter().filter(|n| node::is_ready(n)).map(node::name);
    let mut without: Vec<&str> = nodes.filter(|n| !with_page(n)).collect();
    if without.is_empty() {
        return Vec::new();
    }
    without.sort_unstable();
    let object = target.target.service_ref();
    let found = check.found(target, object.clone()).with("without", without.join(", "));
    vec![found.because(field(&object, "spec.internalTrafficPolicy", "Local"))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn it_never_explains_a_page_that_does_not_open() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["internalTrafficPolicy"] = json!("Local");
        assert_eq!(sample.said(), [(1302, Severity::Info)]);
        sample.answer(json!({"outcome": "timeout"}));
        assert_eq!(sample.said().last(), Some(&(1302, Severity::Info)));
        assert!(sample.said().len() > 1, "something else is to blame");
    }
}
