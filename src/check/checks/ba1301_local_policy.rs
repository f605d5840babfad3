//! BA1301: externalTrafficPolicy is Local, and the node that is dialled has no ready pod of the Service.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1301),
    slug: "local-policy",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[],
    remedies: &[ActionName::TrafficPolicy],
    explains: &[Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck().filter(|s| s.is_local()) else { return Vec::new() };
    let Some(node) = target.reach.node else { return Vec::new() };
    if service.usable().any(|e| e.node == Some(node)) {
        return Vec::new();
    }
    // kube-proxy drops such packets. A refusal comes from something else; this would then be the next thing to meet.
    let hurts = target.reach.answers == Some(false) && !target.reach.is_turned_away();
    let mut elsewhere: Vec<&str> = service.usable().filter_map(|e| e.node).collect();
    elsewhere.sort_unstable();
    elsewhere.dedup();
    let object = target.target.service_ref();
    let found = check
        .found(target, object.clone())
        .with("node", node)
        .with("elsewhere", elsewhere.join(", "))
        .severity(if hurts { Severity::Error } else { Severity::Warning });
    let count =
        Evidence::Count { object: ObjectRef::cluster("Node", node), what: "endpoints".into(), have: 0, want: 1 };
    let found = found.because(field(&object, "spec.externalTrafficPolicy", "Local")).because(count);
    vec![found.because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn the_node_with_the_pod_is_named() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["externalTrafficPolicy"] = json!("Local");
        sample.answer(json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(1301, Severity::Error)]);
        assert_eq!(sample.finding(1301).arg("elsewhere"), "w1");
    }

    #[test]
    fn a_refusal_by_a_forward_of_ours_says_nothing() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["externalTrafficPolicy"] = json!("Local");
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.finding(1301).severity, Severity::Warning);
        sample.0["host"]["listeners"] = json!({"30080": "kubectl-bookacc"});
        assert_eq!(sample.finding(1301).severity, Severity::Error);
    }

    #[test]
    fn local_is_right_where_the_pod_is() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["externalTrafficPolicy"] = json!("Local");
        sample.objects("endpointSlices")[0]["endpoints"][0]["nodeName"] = json!("cp1");
        assert_eq!(sample.said(), []);
    }
}
