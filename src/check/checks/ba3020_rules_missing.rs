//! BA3020: kube-proxy runs on this node, but its rule for the nodePort is gone.

use crate::check::{Check, Hop};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, ProxyMode, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3020),
    slug: "rules-missing",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy, Input::Rules],
    either: &[],
    remedies: &[ActionName::WakeKubeProxy, ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3018)],
    run,
};

/// kube-proxy writes its rules within a second or so of a change, in seconds.
const PATIENCE: i64 = 5;
/// On a busy node it may take some more: until then the cause is only likely.
const BUSY: i64 = 10;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    // kube-proxy writes no rules for what is left to another proxy.
    let Some(service) = target.stuck().filter(|s| s.other_proxy().is_none()) else { return Vec::new() };
    let rules = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref());
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(rules), Some(node), Some(port)) = (rules, here, service.node_port()) else { return Vec::new() };
    let proxy = &facts.proxy;
    if rules.node_port(port).is_some() || !proxy.runs_on(node) {
        return Vec::new();
    }
    // A node without a pod of its own has nothing to lead to.
    if service.is_local() && !service.usable().any(|e| e.node == Some(node)) {
        return Vec::new();
    }
    let running = proxy.pods.get(node).map(|p| (pod::name(p), pod::running_for(p, facts.now())));
    let pods = service.live_pods().filter_map(|p| pod::age(p, facts.now()));
    let youngest = pods.chain(service.unchanged_for(facts.now())).chain(running.and_then(|(_, r)| r)).min();
    if youngest.is_some_and(|age| age < PATIENCE) {
        return Vec::new();
    }
    let mode = rules.mode.or(proxy.configured_mode).unwrap_or(ProxyMode::Iptables);
    let mut found = check
        .found(target, ObjectRef::cluster("Node", node))
        .with("node", node)
        .with("pod", running.map(|(name, _)| name).unwrap_or_default())
        .with("mode", format!("{mode:?}").to_lowercase());
    if youngest.is_some_and(|age| age < BUSY) {
        found = found.confidence(Confidence::Likely);
    }
    if mode != ProxyMode::Iptables {
        // There kube-proxy trusts its own memory of the rules: nothing short of a restart makes it look.
        found.remedies.retain(|r| *r != ActionName::WakeKubeProxy);
    }
    if proxy.kind == Kind::Embedded {
        found.remedies.retain(|r| *r != ActionName::RestartKubeProxy);
    }
    if target.reach.answers.is_none() {
        found = found.severity(Severity::Warning);
    }
    vec![found.because(Evidence::NoRule { node: node.to_owned(), port }).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{ActionName, Severity};
    use serde_json::json;

    fn flushed(mode: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["host"]["rules"] = json!({"mode": mode, "services": true, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn it_is_woken_in_iptables_mode_and_restarted_in_nftables_mode() {
        assert_eq!(flushed("iptables").said(), [(3020, Severity::Error)]);
        assert_eq!(flushed("iptables").finding(3020).remedies[0], ActionName::WakeKubeProxy);
        assert_eq!(flushed("nftables").finding(3020).remedies[0], ActionName::RestartKubeProxy);
    }

    #[test]
    fn a_service_of_this_minute_is_given_time() {
        let mut sample = flushed("iptables");
        sample.service()["metadata"]["creationTimestamp"] = json!("2026-11-23T11:59:57Z");
        sample.service()["metadata"]["managedFields"] = json!(null);
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn without_a_ready_pod_the_rules_are_not_looked_at() {
        let mut sample = flushed("iptables");
        sample.deployment()["spec"]["replicas"] = json!(0);
        sample.without_pods();
        assert_eq!(sample.said(), [(2001, Severity::Error)]);
    }
}
