//! BA7001: the NetworkPolicies that select the page's pods admit nobody from outside the cluster.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node, pod, policy};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7001),
    slug: "network-policy",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::NetworkPolicies],
    either: &[],
    remedies: &[ActionName::AdmitOutside],
    explains: &[Code(2301), Code(3018), Code(4004), Code(5011), Code(5012), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    // Where the page answers, nobody enforces them, or something else admits it.
    let Some(service) = target.stuck().filter(|_| target.reach.answers == Some(false)) else { return Vec::new() };
    let policies = facts.index.policies(&target.target.namespace);
    let mut closed = Vec::new();
    for endpoint in service.usable() {
        let (Some(pod), Some(port)) = (service.pod_of(endpoint), endpoint.port) else { return Vec::new() };
        match policy::denying(policies, pod, port) {
            denying if denying.is_empty() => return Vec::new(),
            denying => closed.push((pod, port, denying, endpoint.ip)),
        }
    }
    let Some((sick, port, denying, _)) = closed.first() else { return Vec::new() };
    let reach = &target.reach;
    let to_pods: Vec<&Probe> = closed.iter().flat_map(|(p, ..)| reach.to_pod(pod::name(p))).collect();
    // What another node's packets meet, those of a browser meet behind that node.
    let admitted = to_pods.iter().any(|p| p.outcome.connected() && p.node.as_deref() != reach.node);
    if admitted {
        return Vec::new();
    }
    let rejects = policy::is_rejecting(facts.snapshot);
    let stopped = |p: &&Probe| {
        matches!(p.outcome, Outcome::Timeout | Outcome::NoRoute) || (rejects && p.outcome == Outcome::Refused)
    };
    let unrouted = facts.snapshot.host.as_ref().map(|h| h.unrouted_pod_cidrs.as_slice()).unwrap_or_default();
    let routed = !closed.iter().any(|(.., ip)| unrouted.iter().any(|cidr| node::cidr_contains(cidr, *ip)));
    // Inside the pod no policy stands in the way: an application that does not answer there is another matter.
    let deaf = reach.port_forward.iter().any(|p| !p.outcome.connected());
    let confirmed = !to_pods.is_empty() && to_pods.iter().all(stopped) && routed && !deaf;
    let sure = confirmed && policy::is_enforced(facts.snapshot);
    let names: Vec<&str> = denying.iter().filter_map(|p| p.metadata.name.as_deref()).collect();
    let namespace = &target.target.namespace;
    let object = ObjectRef::namespaced("NetworkPolicy", namespace, names.first().copied().unwrap_or_default());
    let spec = denying.first().and_then(|p| p.spec.as_ref()).map(|s| serde_json::json!(s)).unwrap_or_default();
    let found = check
        .found(target, object.clone())
        .with("pod", pod::name(sick))
        .with("policies", names.join(", "))
        .with("target_port", port)
        .with("allow", admitting(target, service.selector(), *port))
        .severity(if sure { Severity::Error } else { Severity::Warning })
        .confidence(if sure { Confidence::Likely } else { Confidence::Possible });
    vec![found.because(field(&object, "spec", spec)).because_of(to_pods).because_of(reach.failure())]
}

/// The policy that would let anybody in at this port, beside those that are there.
fn admitting(
    target: &TargetFacts<'_>,
    selector: Option<&std::collections::BTreeMap<String, String>>,
    port: u16,
) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": format!("{}-from-outside", target.target.service), "namespace": target.target.namespace},
        "spec": {"podSelector": {"matchLabels": selector}, "ingress": [{"ports": [{"port": port}]}]},
    })
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn denied() -> Sample {
        let mut sample = Sample::healthy();
        sample.0["objects"]["networkPolicies"] = json!([{"metadata": {"name": "default-deny", "namespace": "bookinfo"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}]);
        sample
    }

    fn enforced() -> Sample {
        let mut sample = denied();
        sample.add("daemonSets", json!({"metadata": {"name": "calico-node", "namespace": "kube-system"}}));
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "timeout"}));
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn packets_that_end_before_the_pod_make_it_likely() {
        assert_eq!(enforced().said(), [(7001, Severity::Error)]);
        assert_eq!(enforced().finding(7001).arg("policies"), "default-deny");
    }

    #[test]
    fn where_nobody_is_known_to_enforce_it_is_only_possible() {
        let mut sample = enforced();
        if let Some(sets) = sample.objects("daemonSets").as_array_mut() {
            sets.pop();
        }
        assert_eq!(sample.finding(7001).severity, Severity::Warning);
        assert_eq!(sample.finding(7001).confidence, Confidence::Possible);
    }

    #[test]
    fn a_policy_that_nobody_enforces_is_not_accused() {
        assert_eq!(denied().said(), []);
        let mut sample = denied();
        sample.answer(json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 7001));
    }

    #[test]
    fn k3s_turns_away_what_is_denied() {
        let mut sample = denied();
        sample.objects("nodes")[0]["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.34.4+k3s1");
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "refused"}));
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(7001, Severity::Error)]);
    }
}
