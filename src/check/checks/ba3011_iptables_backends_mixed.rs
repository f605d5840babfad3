//! BA3011: rules of kube-proxy stand in both backends of iptables, and the kernel obeys both.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, NodePortRule, ObjectRef, Rules, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3011),
    slug: "iptables-backends-mixed",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Rules],
    either: &[],
    remedies: &[ActionName::HostPort],
    explains: &[Code(3009), Code(3018), Code(3019), Code(3020), Code(3022), Code(4004)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(node), Some(host), Some(service)) = (here, &facts.snapshot.host, target.exposed()) else {
        return Vec::new();
    };
    let (Some(rules), Some(other)) = (&host.rules, &host.other_rules) else { return Vec::new() };
    let port = service.node_port().unwrap_or_default();
    let leads_right =
        |rule: &NodePortRule| !rule.backends.is_empty() && rule.backends.iter().all(|b| service.leads_here(b));
    // Which of the two the kernel asks first depends on which was there first: one that leads astray is enough.
    let of = |rules: &'_ Rules| rules.node_port(port).cloned();
    let both = [of(rules), of(other)];
    let astray = both.iter().flatten().find(|rule| !leads_right(rule));
    let hurts = target.stuck().is_some() && target.reach.answers == Some(false);
    let (severity, confidence) = match (hurts, astray) {
        (true, Some(_)) => (Severity::Error, Confidence::Likely),
        (true, None) | (false, _) => (Severity::Warning, Confidence::Certain),
    };
    let mut found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node);
    for rule in both.into_iter().flatten() {
        found = found.because(Evidence::Rule { node: node.to_owned(), rule });
    }
    if found.evidence.is_empty() {
        found = found.because(Evidence::NoRule { node: node.to_owned(), port });
    }
    vec![found.severity(severity).confidence(confidence).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn mixed(backend: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["host"]["otherRules"] =
            json!({"mode": "iptables", "services": true, "nodePorts": [{"port": 30080, "backends": [backend]}]});
        sample
    }

    #[test]
    fn rules_that_lead_astray_in_either_backend_are_the_cause() {
        let mut sample = mixed("10.244.1.99:9080");
        sample.answer(json!({"outcome": "noRoute"}));
        assert_eq!(sample.said(), [(3011, Severity::Error)]);
    }

    #[test]
    fn while_the_page_answers_it_is_a_warning() {
        assert_eq!(mixed("10.244.1.7:9080").said(), [(3011, Severity::Warning)]);
    }

    #[test]
    fn where_both_lead_right_something_else_is_to_blame() {
        let mut sample = mixed("10.244.1.7:9080");
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4004, Severity::Error), (3011, Severity::Warning)]);
    }
}
