//! BA4011: the cloud's image came with firewall rules that reject what is forwarded.

use crate::check::{Check, Hop, wall};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4011),
    slug: "provider-image-rejects",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::Firewall, Input::OutsiderProbe],
    either: &[],
    remedies: &[ActionName::AcceptOnNode],
    explains: &[Code(3018), Code(4004), Code(4005)],
    run,
};

/// Oracle's identifiers begin so, and its images end iptables' FORWARD chain with such a rule.
const ORACLE: [&str; 2] = ["ocid1.", "oci://"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let stopped = wall::first(facts, target, |s| {
        let base = s.barrier.base;
        let provider = facts.node(s.node).and_then(|n| n.spec.as_ref()?.provider_id.as_deref()).unwrap_or_default();
        let oracle = ORACLE.iter().any(|start| provider.starts_with(start));
        oracle && base.is_iptables() && base.table == "filter" && s.barrier.answer() == Some("icmp-host-prohibited")
    });
    stopped.map(|s| wall::found(check, target, &s)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn rejecting(provider: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "noRoute"}));
        sample.objects("nodes")[0]["spec"]["providerID"] = json!(provider);
        sample.0["host"]["firewall"] = json!({"chains": [{"program": "iptables-legacy", "family": "ip",
            "table": "filter", "name": "FORWARD", "hook": "forward", "rules": [
                {"text": "-A FORWARD -j REJECT --reject-with icmp-host-prohibited",
                 "then": {"do": "reject", "with": "icmp-host-prohibited"}, "packets": {"before": 0, "after": 1}}]}]});
        sample
    }

    #[test]
    fn the_image_s_rule_is_named_where_the_provider_is_known_for_it() {
        assert_eq!(rejecting("ocid1.instance.oc1.x").said(), [(4011, Severity::Error)]);
        assert_eq!(rejecting("aws:///x/i-1").said(), [(4005, Severity::Error)]);
    }
}
