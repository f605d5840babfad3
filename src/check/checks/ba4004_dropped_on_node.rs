//! BA4004: the node's own rules are right and it reaches the pod, but it drops what strangers send.

use crate::check::{Check, Hop, rules_lead_right};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4004),
    slug: "dropped-on-node",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Rules, Input::OutsiderProbe],
    either: &[],
    // A setting of the node: the text says what to do, by hand.
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck() else { return Vec::new() };
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let lost = !target.reach.outsider.is_empty() && target.reach.outsider.iter().all(|p| p.outcome.dropped());
    let reached = target.reach.node_to_pod.iter().find(|p| p.outcome.is_right());
    let (Some(node), Some(reached), true) = (here, reached, lost) else { return Vec::new() };
    let right_to_drop = service.is_local() && !service.usable().any(|e| e.node == Some(node));
    if rules_lead_right(facts, target) != Some(true) || right_to_drop {
        return Vec::new();
    }
    let rules = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref());
    let rule = service.node_port().and_then(|p| rules?.node_port(p));
    let mut found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node);
    if let Some(rule) = rule {
        found = found.because(Evidence::Rule { node: node.to_owned(), rule: rule.clone() });
    }
    vec![found.because_of(target.reach.failure()).because_of([*reached])]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn a_firewall_on_the_node_shows_by_what_it_lets_through() {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4004, Severity::Error)]);
    }

    #[test]
    fn without_a_view_of_the_pod_it_is_not_claimed() {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        sample.blind("nodeToPod");
        assert_eq!(sample.said(), []);
    }
}
