//! BA5001: a node that the page depends on has no pod network: its CNI is not installed or does not run.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, node, pod};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5001),
    slug: "no-pod-network",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Nodes, Input::Services, Input::Pods, Input::EndpointSlices],
    either: &[],
    remedies: &[],
    explains: &[Code(2002), Code(2007), Code(2101), Code(3018), Code(4001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let sick = |name: &str| facts.node(name).filter(|n| node::without_network(n).is_some());
    let usable = service.usable().next().is_some();
    let of_pods = service.live_pods().filter_map(pod::node).find_map(sick);
    let waits = |p: &_| pod::node(p).is_none_or(|n| sick(n).is_some());
    let all_lost = !usable && service.live_pods().next().is_some() && service.live_pods().all(waits);
    // A pod that was never placed may be kept off by the taint of just such a node.
    let without = || facts.snapshot.objects.nodes.iter().filter(|n| node::without_network(n).is_some());
    let anywhere = all_lost.then(|| without().min_by_key(|n| node::name(n))).flatten();
    let dialled = target.reach.node.and_then(sick);
    let (sick, severity, confidence) = match (of_pods.or(anywhere), dialled) {
        (Some(node), _) if all_lost => (node, unless_it_answers(target), Confidence::Certain),
        (_, Some(node)) if target.reach.answers == Some(false) => (node, Severity::Error, Confidence::Likely),
        (Some(node), _) | (None, Some(node)) => (node, Severity::Warning, Confidence::Certain),
        (None, None) => return Vec::new(),
    };
    let Some((condition, status, message)) = node::without_network(sick) else { return Vec::new() };
    let object = ObjectRef::cluster("Node", node::name(sick));
    let found = check.found(target, object.clone()).with("node", node::name(sick)).with("why", message);
    let condition = Evidence::Condition {
        object,
        condition: condition.to_owned(),
        status: status.to_owned(),
        message: message.to_owned(),
    };
    vec![found.severity(severity).confidence(confidence).because(condition).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn without_cni() -> Sample {
        let mut sample = Sample::healthy();
        sample.objects("nodes")[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "False",
            "reason": "KubeletNotReady", "message": "container runtime network not ready: NetworkReady=false \
            reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"}]);
        sample
    }

    #[test]
    fn the_unready_node_and_its_pods_are_consequences() {
        let mut sample = without_cni();
        sample.unready();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(5001, Severity::Error)]);
    }

    #[test]
    fn a_pod_that_no_node_takes_waits_for_it() {
        let mut sample = without_cni();
        sample.unready();
        sample.pod()["spec"]["nodeName"] = json!(null);
        sample.pod()["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/2 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"}]});
        sample.objects("endpointSlices")[0]["endpoints"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(5001, Severity::Error)]);
    }

    #[test]
    fn while_the_page_answers_it_is_a_warning_and_another_reason_is_another_matter() {
        assert_eq!(without_cni().said(), [(5001, Severity::Warning)]);
        let mut sample = Sample::healthy();
        sample.objects("nodes")[1]["status"]["conditions"] =
            json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]);
        assert_eq!(sample.said(), []);
    }
}
