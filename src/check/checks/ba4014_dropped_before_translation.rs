//! BA4014: a firewall of the node stops packets to the port before kube-proxy's rules see them.

use crate::check::{Check, Hop, wall};
use crate::facts::passage::Part;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4014),
    slug: "dropped-before-translation",
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
    let stopped = wall::first(facts, target, |s| s.part == Part::BeforeTranslation);
    stopped.map(|s| wall::found(check, target, &s)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::{Value, json};

    fn raw(rule: Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        sample.0["host"]["firewall"] = json!({"chains": [{"program": "iptables-nft", "family": "ip", "table": "raw",
            "name": "PREROUTING", "hook": "prerouting", "priority": -300, "rules": [rule]}]});
        sample
    }

    fn to(port: &str, before: u64, after: u64) -> Value {
        json!({"text": format!("-A PREROUTING -p tcp -m tcp --dport {port} -j DROP"), "then": {"do": "drop"},
            "when": [{"on": "destinationPort", "any": [port]}], "packets": {"before": before, "after": after}})
    }

    #[test]
    fn a_rule_that_counted_the_probe_is_certain() {
        assert_eq!(raw(to("30080", 0, 3)).said(), [(4014, Severity::Error)]);
        assert_eq!(raw(to("30080", 0, 3)).finding(4014).confidence, Confidence::Certain);
    }

    #[test]
    fn one_for_another_port_or_that_counted_nothing_is_left_alone() {
        for rule in [to("30300", 0, 3), to("30080", 5, 5)] {
            assert!(raw(rule).said().iter().all(|(code, _)| *code != 4014));
        }
    }

    #[test]
    fn a_rule_for_the_uplink_stops_strangers_though_the_probe_gets_through() {
        let mut rule = to("30080", 4, 4);
        rule["when"] = json!([{"on": "inDevice", "any": ["eth0"]}, {"on": "destinationPort", "any": ["30080"]}]);
        let mut sample = raw(rule);
        sample.probes(&["outsider"], None, json!({"outcome": "http", "status": 200, "right": true}));
        assert_eq!(sample.said(), [], "which device is the uplink is not known");
        sample.0["host"]["devices"] = json!([{"name": "eth0", "mtu": 1500, "addresses": ["10.0.0.10"]}]);
        assert_eq!(sample.said(), [(4014, Severity::Error)]);
        assert_eq!(sample.finding(4014).confidence, Confidence::Likely);
    }

    #[test]
    fn while_the_page_answers_nothing_is_said() {
        let mut sample = raw(to("30080", 0, 3));
        sample.probes(&["outsider"], None, json!({"outcome": "http", "status": 200, "right": true}));
        assert_eq!(sample.said(), []);
    }
}
