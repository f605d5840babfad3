//! BA3008: kube-proxy serves nodePorts on some of the node's addresses only, and not on the one that is dialled.

use std::net::IpAddr;

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, ProxyMode, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3008),
    slug: "node-port-addresses",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy, Input::Nodes],
    either: &[],
    remedies: &[ActionName::ConfigureKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(3020), Code(6001)],
    run,
};

/// The keyword for a node's first address of each family, which is what mode nftables does by itself.
const PRIMARY: &str = "primary";

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(_), Some(name)) = (target.stuck(), target.reach.node) else { return Vec::new() };
    let (Some(node), Some(failure)) = (facts.node(name), target.reach.failure()) else { return Vec::new() };
    let Ok(dialled) = failure.host.parse::<IpAddr>() else { return Vec::new() };
    // Nobody listens there, so that the node itself turns the packet away.
    if !target.reach.is_turned_away() || !facts.proxy.runs_on(name) {
        return Vec::new();
    }
    let rules = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref());
    let mode = rules.and_then(|r| r.mode).or(facts.proxy.configured_mode);
    let mut listed = facts.proxy.node_port_addresses.clone();
    if listed.is_empty() && mode == Some(ProxyMode::Nftables) {
        listed.push(PRIMARY);
    }
    if listed.is_empty() {
        return Vec::new();
    }
    let own: Vec<IpAddr> = node::internal_ips(node).into_iter().filter_map(|ip| ip.parse().ok()).collect();
    let served = |ip: IpAddr| {
        let first = own.iter().find(|own| own.is_ipv6() == ip.is_ipv6()) == Some(&ip);
        listed.iter().any(|cidr| (*cidr == PRIMARY && first) || node::cidr_contains(cidr, ip))
    };
    if served(dialled) {
        return Vec::new();
    }
    // A public address may be translated on the way to one that the node really holds.
    let held = own.contains(&dialled) || facts.snapshot.held_addresses().contains(&dialled);
    let inside = target.reach.through_node(name).filter(|p| p.outcome.is_right());
    if !held && inside.is_none() && own.iter().any(|ip| served(*ip)) {
        return Vec::new();
    }
    let config = ObjectRef::namespaced("ConfigMap", "kube-system", "kube-proxy");
    let list = listed.join(", ");
    let found = check
        .found(target, config.clone())
        .with("node", name)
        .with("dialled", dialled)
        .with("served", &list)
        .confidence(if held { Confidence::Certain } else { Confidence::Likely });
    let configured = !facts.proxy.node_port_addresses.is_empty();
    let path = if configured { "data[config.conf].nodePortAddresses" } else { "data[config.conf].mode" };
    let value = if configured { list } else { "nftables".to_owned() };
    vec![found.because(field(&config, path, value)).because_of([failure]).because_of(inside)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn configured(mut sample: Sample, config: &str) -> Sample {
        sample.0["objects"]["kubeProxyConfig"]["data"]["config.conf"] = json!(config);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn an_address_outside_the_list_is_not_served() {
        let sample = configured(Sample::healthy(), "mode: iptables\nnodePortAddresses:\n- 192.168.0.0/16\n");
        assert_eq!(sample.said(), [(3008, Severity::Error)]);
        assert_eq!(sample.finding(3008).confidence, Confidence::Certain);
        let sample = configured(Sample::healthy(), "mode: iptables\nnodePortAddresses: [10.0.0.0/8]\n");
        assert!(sample.said().iter().all(|(code, _)| *code != 3008));
    }

    #[test]
    fn mode_nftables_serves_the_first_address_only() {
        let sample = || {
            let mut sample = Sample::from_laptop();
            sample.0["addresses"][0]["node"] = json!("cp1");
            sample
        };
        let nftables = configured(sample(), "mode: nftables\n");
        assert_eq!(nftables.said()[0], (3008, Severity::Error));
        assert_eq!(nftables.finding(3008).confidence, Confidence::Likely);
        let iptables = configured(sample(), "mode: iptables\n");
        assert!(iptables.said().iter().all(|(code, _)| *code != 3008));
    }

    #[test]
    fn packets_that_vanish_are_another_matter() {
        let mut sample = configured(Sample::healthy(), "nodePortAddresses: [192.168.0.0/16]\n");
        sample.answer(json!({"outcome": "timeout"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 3008));
    }
}
