//! BA3018: the node does not answer on the nodePort although kube-proxy runs there and the pod answers.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3018),
    slug: "node-port-unserved",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy, Input::PodProxy],
    either: &[],
    remedies: &[ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(6001)],
    run,
};

/// kube-proxy needs a moment after a change.
const PATIENCE: i64 = 10;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(node)) = (target.stuck(), target.reach.node) else { return Vec::new() };
    let fresh = service.unchanged_for(facts.now()).is_some_and(|s| s < PATIENCE)
        || facts.proxy.has_just_started(node, facts.now(), PATIENCE);
    let proven = target.reach.pod_proxy.iter().find(|p| p.outcome.is_right());
    let Some(proven) = proven.filter(|_| facts.proxy.runs_on(node) && !fresh) else { return Vec::new() };
    let inside = target.reach.through_node(node);
    // What the API server meets on the way to the same port decides; a refusal seen from here says nearly as much,
    // because what drops packets on the way does not refuse.
    let agrees = match inside.map(|p| p.outcome.is_right()) {
        Some(true) => return Vec::new(),
        Some(false) if target.reach.answers == Some(false) => true,
        _ if target.reach.is_turned_away() => false,
        _ => return Vec::new(),
    };
    let found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node).confidence(if agrees {
        Confidence::Likely
    } else {
        Confidence::Possible
    });
    vec![found.because_of(target.reach.failure()).because_of(inside).because_of([*proven])]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    #[test]
    fn a_laptop_sees_that_the_node_is_to_blame() {
        let mut sample = Sample::from_laptop();
        sample.answer(json!({"outcome": "refused"}));
        sample.probes(&["nodeProxy"], None, json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3018, Severity::Error)]);
        assert_eq!(sample.finding(3018).confidence, Confidence::Likely);
        sample.blind("nodeProxy");
        assert_eq!(sample.finding(3018).confidence, Confidence::Possible);
    }
}
