//! BA4012: the node drops the page's packets as belonging to no connection: they come and go by different ways.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::firewall::{Counted, Field, Verdict};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4012),
    slug: "invalid-dropped",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Firewall, Input::OutsiderProbe],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let firewall = facts.snapshot.host.as_ref().and_then(|h| h.firewall.as_ref());
    let (Some(node), Some(firewall), Some(_)) = (here, firewall, target.stuck()) else { return Vec::new() };
    let lost = !target.reach.outsider.is_empty() && target.reach.outsider.iter().all(|p| p.outcome.dropped());
    if target.reach.answers != Some(false) || !lost {
        return Vec::new();
    }
    let all = firewall.chains.iter().flat_map(|c| c.rules.iter().map(move |r| (c, r)));
    let mut counted =
        all.filter(|(_, r)| r.then == Verdict::Drop && r.packets.as_ref().and_then(Counted::rose) == Some(true));
    let invalid = |c: &crate::model::firewall::Condition| c.on == Field::State && !c.not && c.any == ["invalid"];
    let Some((chain, rule)) = counted.find(|(_, r)| r.when.iter().any(invalid)) else { return Vec::new() };
    let evidence = Evidence::Barrier {
        node: node.to_owned(),
        chain: chain.title(),
        rule: rule.text.clone(),
        packets: rule.packets.and_then(|c| Some(c.after?.saturating_sub(c.before))),
    };
    let found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node);
    vec![found.because(evidence).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn invalid(after: u64) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        sample.0["host"]["firewall"] = json!({"chains": [{"program": "iptables-nft", "family": "ip",
            "table": "filter", "name": "FORWARD", "hook": "forward", "rules": [
                {"text": "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP", "then": {"do": "drop"},
                 "when": [{"on": "state", "any": ["invalid"]}], "packets": {"before": 4, "after": after}}]}]});
        sample
    }

    #[test]
    fn only_a_rule_that_counted_the_probe_is_named() {
        assert_eq!(invalid(7).said(), [(4012, Severity::Error), (4004, Severity::Error)]);
        assert_eq!(invalid(4).said(), [(4004, Severity::Error)]);
    }
}
