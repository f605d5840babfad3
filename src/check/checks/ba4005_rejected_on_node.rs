//! BA4005: a firewall of the node turns away what strangers send on to pods, and says so to the sender.

use crate::check::{Check, Hop, wall};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4005),
    slug: "rejected-on-node",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::Firewall, Input::OutsiderProbe],
    either: &[],
    remedies: &[ActionName::AcceptOnNode],
    explains: &[Code(3018), Code(4004)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let stopped = wall::first(facts, target, |s| wall::is_behind_translation(s) && s.barrier.answer().is_some());
    let found = stopped.map(|s| {
        let answer = s.barrier.answer().unwrap_or_default();
        wall::found(check, target, &s).with("answer", answer)
    });
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::{Value, json};

    fn walled(when: Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "noRoute"}));
        sample.0["host"]["firewall"] = json!({"chains": [{"program": "nft", "family": "inet", "table": "firewalld",
            "name": "filter_FORWARD", "hook": "forward", "priority": 10, "rules": [
                {"text": "ct state established,related accept", "then": {"do": "accept"},
                 "when": [{"on": "state", "any": ["established", "related"]}]},
                {"text": "reject with icmp-host-prohibited", "when": when,
                 "then": {"do": "reject", "with": "icmp-host-prohibited"}}]}]});
        sample
    }

    #[test]
    fn a_table_of_its_own_that_rejects_is_found_by_its_rule() {
        let sample = walled(json!([]));
        assert_eq!(sample.said(), [(4005, Severity::Error)]);
        assert_eq!(sample.finding(4005).confidence, Confidence::Likely);
        assert_eq!(sample.finding(4005).arg("answer"), "icmp-host-prohibited");
    }

    #[test]
    fn one_for_another_network_is_not_to_blame() {
        let sample = walled(json!([{"on": "destination", "any": ["192.168.0.0/16"]}]));
        assert!(sample.said().iter().all(|(code, _)| *code != 4005));
    }
}
