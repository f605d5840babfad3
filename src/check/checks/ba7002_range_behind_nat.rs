//! BA7002: a NetworkPolicy lets an address range in, but what it meets are the nodes' addresses, which kube-proxy has put in
//! the browsers' place.

use std::net::IpAddr;

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node, pod, policy};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7002),
    slug: "range-behind-nat",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::NetworkPolicies, Input::Nodes],
    either: &[],
    remedies: &[],
    explains: &[Code(2301), Code(3018), Code(4004), Code(5011), Code(5012), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    // With externalTrafficPolicy Local the browsers' addresses stay as they are.
    let stuck = target.stuck().filter(|s| target.reach.answers == Some(false) && !s.is_local());
    let (Some(service), Some(dialled)) = (stuck, target.reach.node.and_then(|n| facts.node(n))) else {
        return Vec::new();
    };
    let sources: Vec<IpAddr> = node::internal_ips(dialled).iter().filter_map(|ip| ip.parse().ok()).collect();
    let policies = facts.index.policies(&target.target.namespace);
    let mut closed = None;
    let mut to_pods: Vec<&Probe> = Vec::new();
    for endpoint in service.usable() {
        let (Some(pod), Some(port)) = (service.pod_of(endpoint), endpoint.port) else { return Vec::new() };
        let ranges = policy::ranges(policies, pod, port);
        let admitted = ranges.iter().any(|(_, b)| sources.iter().any(|ip| policy::holds_address(b, *ip)));
        let Some(first) = ranges.first().filter(|_| !admitted && !sources.is_empty()) else { return Vec::new() };
        to_pods.extend(target.reach.to_pod(pod::name(pod)));
        closed.get_or_insert((pod, *first));
    }
    let Some((sick, (policy, block))) = closed else { return Vec::new() };
    if to_pods.iter().any(|p| p.outcome.connected() && p.node.as_deref() != target.reach.node) {
        return Vec::new();
    }
    let rejects = policy::is_rejecting(facts.snapshot);
    let stopped = |p: &&Probe| {
        matches!(p.outcome, Outcome::Timeout | Outcome::NoRoute) || (rejects && p.outcome == Outcome::Refused)
    };
    let deaf = target.reach.port_forward.iter().any(|p| !p.outcome.connected());
    let sure = !to_pods.is_empty() && to_pods.iter().all(stopped) && !deaf && policy::is_enforced(facts.snapshot);
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::namespaced("NetworkPolicy", &target.target.namespace, name);
    let found = check
        .found(target, object.clone())
        .with("pod", pod::name(sick))
        .with("policy", name)
        .with("range", &block.cidr)
        .with("node", node::name(dialled))
        .with("source", sources.first().map(ToString::to_string).unwrap_or_default())
        .severity(if sure { Severity::Error } else { Severity::Warning })
        .confidence(if sure { Confidence::Likely } else { Confidence::Possible });
    let range = field(&object, "spec.ingress[].from[].ipBlock.cidr", block.cidr.as_str());
    let kept = field(&target.target.service_ref(), "spec.externalTrafficPolicy", "Cluster");
    vec![found.because(range).because(kept).because_of(to_pods).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn ranged(cidr: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["objects"]["networkPolicies"] = json!([{"metadata": {"name": "office", "namespace": "bookinfo"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}}]);
        sample.add("daemonSets", json!({"metadata": {"name": "calico-node", "namespace": "kube-system"}}));
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "timeout"}));
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    fn named(sample: &Sample) -> bool {
        sample.said().iter().any(|(code, _)| *code == 7002)
    }

    #[test]
    fn a_range_of_browsers_is_not_the_nodes() {
        assert_eq!(ranged("198.51.100.0/24").said(), [(7002, Severity::Error)]);
        assert!(!named(&ranged("0.0.0.0/0")));
        assert!(!named(&ranged("10.0.0.0/24")));
    }

    #[test]
    fn addresses_that_are_kept_are_what_the_policy_meant() {
        let mut sample = ranged("198.51.100.0/24");
        sample.service()["spec"]["externalTrafficPolicy"] = json!("Local");
        assert!(!named(&sample));
    }

    #[test]
    fn without_an_enforcer_it_is_possible_at_most() {
        let mut sample = ranged("198.51.100.0/24");
        if let Some(sets) = sample.objects("daemonSets").as_array_mut() {
            sets.pop();
        }
        assert_eq!(sample.finding(7002).confidence, Confidence::Possible);
    }
}
