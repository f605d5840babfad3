//! BA4001: a node that the page depends on is not ready.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, node, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4001),
    slug: "node-not-ready",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Nodes, Input::Services, Input::Pods, Input::EndpointSlices],
    either: &[],
    remedies: &[ActionName::MendNode, ActionName::PinToControlPlane],
    // The controller marks the pods of such a node as not ready.
    explains: &[Code(2002), Code(2009), Code(2101), Code(3018), Code(5011), Code(5012)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let sick = |name: &str| facts.node(name).filter(|n| !node::is_ready(n));
    let usable = service.usable().next().is_some();
    let of_pods = service.live_pods().filter_map(pod::node).find_map(sick);
    let all_lost = !usable && service.live_pods().all(|p| pod::node(p).is_none_or(|n| sick(n).is_some()));
    // A node that is dialled forwards packets whether its kubelet is well or not, so that one is only suspected.
    let dialled = target.reach.node.and_then(sick);
    let (sick, severity, confidence) = match (of_pods, dialled) {
        (Some(node), _) if all_lost => (node, unless_it_answers(target), Confidence::Certain),
        (_, Some(node)) if target.reach.answers == Some(false) => (node, Severity::Error, Confidence::Likely),
        (Some(node), _) | (None, Some(node)) => (node, Severity::Warning, Confidence::Certain),
        (None, None) => return Vec::new(),
    };
    let name = node::name(sick);
    let object = ObjectRef::cluster("Node", name);
    let (status, why) = node::ready(sick);
    let found = check.found(target, object.clone()).with("node", name).with("why", why);
    let condition = Evidence::Condition {
        object,
        condition: "Ready".to_owned(),
        status: status.to_owned(),
        message: why.to_owned(),
    };
    vec![found.severity(severity).confidence(confidence).because(condition).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn worker_lost() -> Sample {
        let mut sample = Sample::healthy();
        sample.objects("nodes")[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "Unknown",
            "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}]);
        sample
    }

    #[test]
    fn the_unready_pod_is_its_consequence() {
        let mut sample = worker_lost();
        sample.unready();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(4001, Severity::Error)]);
        assert_eq!(sample.finding(4001).arg("node"), "w1");
    }

    #[test]
    fn while_the_page_answers_it_is_a_warning() {
        assert_eq!(worker_lost().said(), [(4001, Severity::Warning)]);
    }
}
