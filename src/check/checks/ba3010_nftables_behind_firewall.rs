//! BA3010: kube-proxy in nftables mode leaves the host's firewall as it is, and something on the node drops the packets.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, ProxyMode, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3010),
    slug: "nftables-behind-firewall",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    // Who drops is seen on the node only; there other checks name it.
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy, Input::NodeProxy],
    either: &[Input::PodProxy, Input::PortForward],
    remedies: &[],
    explains: &[Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let reach = &target.reach;
    let (Some(service), Some(node)) = (target.stuck(), reach.node) else { return Vec::new() };
    let nftables = facts.proxy.configured_mode == Some(ProxyMode::Nftables);
    if !nftables || !facts.proxy.runs_on(node) || reach.answers != Some(false) {
        return Vec::new();
    }
    // firewalld turns packets away as "no route to host"; others drop them.
    let stopped = |p: &Probe| matches!(p.outcome, Outcome::Timeout | Outcome::NoRoute);
    if !reach.decisive.iter().all(|p| stopped(p)) || (service.is_local() && !here(service, node)) {
        return Vec::new();
    }
    // Where the API server gets through to the same node, what drops stands before the node.
    let seen = reach.through_node(node).filter(|p| stopped(p));
    let well = reach.pod_proxy.iter().chain(&reach.port_forward).copied().find(|p| p.outcome.is_right());
    let (Some(seen), Some(well)) = (seen, well) else { return Vec::new() };
    // That kube-proxy fails on all nodes alike, the pods' own among them, is less likely than a firewall on each.
    let nodes = reach.node_proxy.iter().filter(|p| Some(p.port) == reach.port);
    let stopped_on = |name: Option<&str>| name.and_then(|n| reach.through_node(n)).is_some_and(&stopped);
    let everywhere =
        nodes.clone().count() >= 2 && nodes.clone().all(|p| stopped(p)) && service.usable().all(|e| stopped_on(e.node));
    let config = ObjectRef::namespaced("ConfigMap", "kube-system", "kube-proxy");
    let found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node);
    let found = match everywhere {
        true => found,
        false => found.severity(Severity::Warning).confidence(Confidence::Possible),
    };
    let mode = field(&config, "data[config.conf].mode", "nftables");
    vec![found.because(mode).because_of(reach.failure()).because_of([seen]).because_of([well])]
}

fn here(service: &crate::facts::ServiceFacts<'_>, node: &str) -> bool {
    service.usable().any(|e| e.node == Some(node))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use serde_json::json;

    fn dropped(mode: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["objects"]["kubeProxyConfig"]["data"]["config.conf"] = json!(format!("mode: {mode}\n"));
        sample.answer(json!({"outcome": "timeout"}));
        sample.probes(&["nodeProxy"], None, json!({"outcome": "timeout"}));
        sample
    }

    fn named(sample: &Sample) -> bool {
        sample.said().iter().any(|(code, _)| *code == 3010)
    }

    #[test]
    fn only_the_mode_that_opens_no_firewall_is_suspected() {
        assert!(named(&dropped("nftables")));
        assert!(!named(&dropped("iptables")));
    }

    #[test]
    fn where_the_node_answers_inside_the_packets_end_before_it() {
        let mut sample = dropped("nftables");
        sample.probes(&["nodeProxy"], None, json!({"outcome": "http", "status": 200, "right": true}));
        assert!(!named(&sample));
    }
}
