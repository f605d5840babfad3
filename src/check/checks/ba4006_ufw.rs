//! BA4006: ufw is active on the node and does not forward to pods.

use crate::check::{Check, Hop, wall};
use crate::facts::passage::Stopped;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4006),
    slug: "ufw",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::Firewall, Input::OutsiderProbe],
    either: &[],
    remedies: &[ActionName::AcceptOnNode],
    explains: &[Code(3018), Code(4004), Code(4005)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let firewall = facts.snapshot.host.as_ref().and_then(|h| h.firewall.as_ref());
    if !firewall.is_some_and(|f| f.managers.contains("ufw")) {
        return Vec::new();
    }
    let stopped = wall::first(facts, target, |s| wall::is_behind_translation(s) && is_ufw_s(s));
    stopped.map(|s| wall::found(check, target, &s)).into_iter().collect()
}

/// A rule in one of ufw's chains, or the policy that ufw sets (DEFAULT_FORWARD_POLICY).
fn is_ufw_s(stopped: &Stopped<'_>) -> bool {
    let barrier = &stopped.barrier;
    let filter = barrier.base.is_iptables() && barrier.base.table == "filter";
    filter && (barrier.chain.name.starts_with("ufw-") || barrier.rule.is_none())
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn policy(managers: &[&str]) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        sample.0["host"]["firewall"] = json!({"managers": managers, "chains": [{"program": "iptables-nft",
            "family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "drops": true,
            "packets": {"before": 2, "after": 5}, "rules": []}]});
        sample
    }

    #[test]
    fn ufw_s_policy_is_its_own_cause() {
        assert_eq!(policy(&["ufw"]).said(), [(4006, Severity::Error)]);
        assert_eq!(policy(&[]).said(), [(4004, Severity::Error)]);
    }
}
