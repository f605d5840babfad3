//! BA5010: the API server cannot reach the pods, although browsers can: its proxies and the tunnel's first look fail.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5010),
    slug: "control-plane-off-pod-network",
    hop: Hop::PodNetwork,
    severity: Severity::Info,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::PodProxy, Input::NodeProxy],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(_), true) = (target.exposed(), target.reach.answers == Some(true)) else { return Vec::new() };
    let lost = |outcome: &Outcome| matches!(outcome, Outcome::Timeout | Outcome::NoRoute | Outcome::NetworkUnreachable);
    let proxied = &target.reach.pod_proxy;
    // It reaches the nodes, so that it is the pod network alone which it has no part in. Where this node does not get
    // through either, it is the way between the nodes that is to be looked at.
    let nodes = target.reach.node_proxy.iter().find(|p| p.outcome.is_right());
    let here = target.reach.node_to_pod.iter().any(|p| lost(&p.outcome));
    let first = proxied.first().filter(|_| proxied.iter().all(|p| lost(&p.outcome)) && !here);
    let (Some(first), Some(through)) = (first, nodes) else { return Vec::new() };
    let pod = first.pod.as_deref().unwrap_or_default();
    let found = check.found(target, ObjectRef::namespaced("Pod", &target.target.namespace, pod)).with("pod", pod);
    vec![found.because_of([*first, *through]).because_of(target.reach.decisive.first().copied())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn it_is_worth_a_note_where_the_page_answers() {
        let mut sample = Sample::from_laptop();
        sample.probes(&["podProxy"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(5010, Severity::Info)]);
        sample.answer(json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 5010));
    }

    #[test]
    fn a_pod_that_refuses_has_been_reached() {
        let mut sample = Sample::from_laptop();
        sample.probes(&["podProxy"], None, json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 5010));
    }
}
