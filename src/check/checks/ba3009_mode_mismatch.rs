//! BA3009: the rules on this node are those of another mode than the one kube-proxy is configured for.

use crate::check::stale::stale;
use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, ProxyMode, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3009),
    slug: "mode-mismatch",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy, Input::Rules],
    either: &[],
    remedies: &[ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(3019)],
    run,
};

/// Seconds that a kube-proxy may need to clear away another mode's rules and write its own.
const PATIENCE: i64 = 60;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let rules = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref());
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(found_mode), Some(node)) = (rules.and_then(|r| r.mode), here) else { return Vec::new() };
    let Some(wanted) = facts.proxy.configured_mode.filter(|wanted| *wanted != found_mode) else { return Vec::new() };
    // IPVS keeps some of its rules in iptables: only tables of nftables are foreign to it.
    let mixed = wanted == ProxyMode::Ipvs && found_mode == ProxyMode::Iptables;
    if !facts.proxy.runs_on(node) || facts.proxy.has_just_started(node, facts.now(), PATIENCE) || mixed {
        return Vec::new();
    }
    let hurts = stale(facts, target).is_some();
    let config = ObjectRef::namespaced("ConfigMap", "kube-system", "kube-proxy");
    let word = |mode: ProxyMode| format!("{mode:?}").to_lowercase();
    let found = check
        .found(target, ObjectRef::cluster("Node", node))
        .with("node", node)
        .with("configured", word(wanted))
        .with("found", word(found_mode))
        .severity(if hurts { Severity::Error } else { Severity::Warning })
        .confidence(if hurts { Confidence::Likely } else { Confidence::Certain });
    let found = found.because(field(&config, "data[config.conf].mode", word(wanted)));
    let rules = field(&ObjectRef::cluster("Node", node), "rules.mode", word(found_mode));
    vec![found.because(rules).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn configured(mode: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["objects"]["kubeProxyConfig"]["data"]["config.conf"] = json!(format!("mode: {mode}\n"));
        sample
    }

    #[test]
    fn while_the_page_answers_it_is_a_warning() {
        assert_eq!(configured("nftables").said(), [(3009, Severity::Warning)]);
        assert_eq!(configured("iptables").said(), []);
    }

    #[test]
    fn rules_that_were_left_behind_lead_astray() {
        let mut sample = configured("iptables");
        let backends = json!([{"port": 30080, "backends": ["10.244.1.99:9080"]}]);
        sample.0["host"]["rules"] = json!({"mode": "nftables", "services": true, "nodePorts": backends});
        sample.answer(json!({"outcome": "noRoute"}));
        assert_eq!(sample.said(), [(3009, Severity::Error)]);
    }
}
