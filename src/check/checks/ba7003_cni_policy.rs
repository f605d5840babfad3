//! BA7003: a policy of the CNI's own kind (Cilium's, Calico's) selects the page's pods and admits nobody from outside.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, other_policies, pod, policy};
use crate::model::{Code, Confidence, Finding, Input, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7003),
    slug: "cni-policy",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::NetworkPolicies, Input::OtherPolicies],
    either: &[],
    remedies: &[],
    explains: &[Code(2301), Code(3018), Code(4004), Code(5011), Code(5012), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck().filter(|_| target.reach.answers == Some(false)) else { return Vec::new() };
    let mut first = None;
    let mut to_pods: Vec<&Probe> = Vec::new();
    for endpoint in service.usable() {
        let (Some(pod), Some(port)) = (service.pod_of(endpoint), endpoint.port) else { return Vec::new() };
        let denying = other_policies::denying(facts, pod, port);
        let Some(denies) = denying.first().copied() else { return Vec::new() };
        to_pods.extend(target.reach.to_pod(pod::name(pod)));
        first.get_or_insert((pod, port, denies));
    }
    let Some((sick, port, denies)) = first else { return Vec::new() };
    // What comes from another node is as strange to the policy as a browser.
    if to_pods.iter().any(|p| p.outcome.connected() && p.node.as_deref() != target.reach.node) {
        return Vec::new();
    }
    let stopped = |p: &&Probe| matches!(p.outcome, Outcome::Timeout | Outcome::NoRoute);
    let deaf = target.reach.port_forward.iter().any(|p| !p.outcome.connected());
    let at_address = target.reach.decisive.iter().all(stopped);
    let confirmed = to_pods.iter().all(stopped) && at_address && !deaf;
    let sure = confirmed && policy::is_enforced(facts.snapshot);
    let object = other_policies::object(denies);
    let rules = denies.pointer("/spec/ingress").cloned().unwrap_or_default();
    let found = check
        .found(target, object.clone())
        .with("policy", &object)
        .with("pod", pod::name(sick))
        .with("target_port", port)
        .severity(if sure { Severity::Error } else { Severity::Warning })
        .confidence(if sure { Confidence::Likely } else { Confidence::Possible });
    vec![found.because(field(&object, "spec.ingress", rules)).because_of(to_pods).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::{Value, json};

    fn cilium(ingress: Value) -> Sample {
        let mut sample = Sample::healthy();
        *sample.objects("otherPolicies") = json!([{"kind": "CiliumNetworkPolicy",
            "metadata": {"name": "page", "namespace": "bookinfo"},
            "spec": {"endpointSelector": {"matchLabels": {"app": "productpage"}}, "ingress": ingress}}]);
        sample.add("daemonSets", json!({"metadata": {"name": "cilium", "namespace": "kube-system"}}));
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "timeout"}));
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn a_policy_for_the_mesh_alone_keeps_browsers_out() {
        assert_eq!(cilium(json!([{"fromEndpoints": [{}]}])).said(), [(7003, Severity::Error)]);
    }

    #[test]
    fn one_that_admits_the_world_is_not_accused() {
        let sample = cilium(json!([{"fromEntities": ["world"]}]));
        assert!(sample.said().iter().all(|(code, _)| *code != 7003));
    }

    #[test]
    fn where_the_failure_looks_different_it_is_possible_at_most() {
        let mut sample = cilium(json!([]));
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.finding(7003).confidence, Confidence::Possible);
    }
}
