//! BA4004: the node's own rules are right and it reaches the pod, but it drops what strangers send on to pods.

use crate::check::{Check, Hop, rules_lead_right, wall};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4004),
    slug: "dropped-on-node",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Rules, Input::OutsiderProbe],
    either: &[],
    remedies: &[ActionName::AcceptOnNode],
    explains: &[Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let wanted = |s: &_| wall::is_behind_translation(s) && s.barrier.answer().is_none();
    match wall::first(facts, target, wanted) {
        Some(stopped) => vec![wall::found(check, target, &stopped)],
        None => by_what_passes(check, facts, target).into_iter().collect(),
    }
}

/// Without the rule itself: the node's own packets reach the pod, a stranger's do not.
fn by_what_passes(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Option<Finding> {
    let service = target.stuck()?;
    let node = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n))?;
    let reached = target.reach.node_to_pod.iter().find(|p| p.outcome.connected())?;
    let lost = !target.reach.outsider.is_empty() && target.reach.outsider.iter().all(|p| p.outcome.dropped());
    let right_to_drop = service.is_local() && !service.usable().any(|e| e.node == Some(node));
    if !lost || right_to_drop || rules_lead_right(facts, target) != Some(true) {
        return None;
    }
    let rules = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref());
    let rule = service.node_port().and_then(|p| rules?.node_port(p));
    let found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node);
    let mut found = found.with("chain", "").with("rule", "").confidence(Confidence::Possible);
    if let Some(rule) = rule {
        found = found.because(Evidence::Rule { node: node.to_owned(), rule: rule.clone() });
    }
    Some(found.because_of(target.reach.failure()).because_of([*reached]))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::{Value, json};

    fn lost() -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        sample
    }

    fn forward(mut sample: Sample, rules: Value, drops: bool) -> Sample {
        sample.0["host"]["firewall"] = json!({"chains": [{"program": "iptables-nft", "family": "ip", "table": "filter",
            "name": "FORWARD", "hook": "forward", "priority": 0, "drops": drops, "rules": rules}]});
        sample
    }

    #[test]
    fn a_firewall_on_the_node_shows_by_what_it_lets_through() {
        assert_eq!(lost().said(), [(4004, Severity::Error)]);
        assert_eq!(lost().finding(4004).confidence, Confidence::Possible);
    }

    #[test]
    fn a_slow_page_hides_no_rule_for_the_uplink_alone() {
        let rule = |device: &str| {
            json!([{"text": "-A FORWARD -d 10.244.0.0/16 -j DROP", "then": {"do": "drop"},
                "when": [{"on": "destination", "any": ["10.244.0.0/16"]}, {"on": "inDevice", "any": [device]}]}])
        };
        let slow = |device: &str| {
            let mut sample = forward(Sample::healthy(), rule(device), false);
            sample.probes(&["outsider"], None, json!({"outcome": "silent"}));
            sample.0["host"]["devices"] = json!([{"name": "eth0", "mtu": 1500, "addresses": ["10.0.0.10"]}]);
            sample
        };
        assert_eq!(slow("eth0").finding(4004).confidence, Confidence::Likely);
        assert!(slow("eth1").said().iter().all(|(code, _)| *code != 4004));
    }

    #[test]
    fn without_a_view_of_the_pod_it_is_not_claimed() {
        let mut sample = lost();
        sample.blind("nodeToPod");
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn the_rule_that_counted_it_is_named() {
        let rule = json!({"text": "-A FORWARD -d 10.244.0.0/16 -j DROP", "then": {"do": "drop"},
            "when": [{"on": "destination", "any": ["10.244.0.0/16"]}], "packets": {"before": 1, "after": 4}});
        let found = forward(lost(), json!([rule]), false).finding(4004);
        assert_eq!(found.confidence, Confidence::Certain);
        assert_eq!(found.arg("rule"), "-A FORWARD -d 10.244.0.0/16 -j DROP");
        assert_eq!(found.arg("chain"), "iptables-nft -t filter FORWARD");
    }

    #[test]
    fn a_policy_that_kube_proxy_s_mark_comes_before_is_not_to_blame() {
        let marked = json!({"text": "-A FORWARD -j ACCEPT", "then": {"do": "accept"},
            "when": [{"on": "mark", "any": ["0x4000/0x4000"]}]});
        let established = json!({"text": "-A FORWARD -j ACCEPT", "then": {"do": "accept"},
            "when": [{"on": "state", "any": ["related", "established"]}]});
        let both = json!([marked, established.clone()]);
        assert_eq!(forward(lost(), both, true).finding(4004).confidence, Confidence::Possible);
        let found = forward(lost(), json!([established]), true).finding(4004);
        assert_eq!((found.confidence, found.arg("rule")), (Confidence::Likely, "policy DROP"));
    }
}
