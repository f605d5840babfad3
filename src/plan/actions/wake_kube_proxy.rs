//! Makes a live kube-proxy write its rules again, by a throw-away Service: no pod is restarted.

use super::{arg, blank, entry_node};
use crate::facts::{Facts, TargetFacts, node, proxy};
use crate::model::{Act, ActionName, Finding, ProxyMode, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    // In nftables mode kube-proxy trusts its own memory of the map elements until its hourly full sync.
    if mode(facts) == Some(ProxyMode::Nftables) {
        return Err(Text::new("action.wake-kube-proxy.nftables"));
    }
    if facts.proxy.kind == proxy::Kind::DaemonSet {
        let on = entry_node(facts, target).map(node::name).unwrap_or_default();
        if !facts.proxy.pods.contains_key(on) {
            return Err(Text::new("action.wake-kube-proxy.not_there").with("node", on));
        }
    }
    let namespace = &target.target.namespace;
    let act = Act::Wake { namespace: namespace.clone() };
    let mut step = blank(ActionName::WakeKubeProxy, Tier::T1, target, finding, act, Verify::Reachable);
    step.command = format!(
        "kubectl -n {namespace} create service clusterip bookaccess-wake --tcp=80 && kubectl -n {namespace} delete service bookaccess-wake"
    );
    arg(&mut step, "namespace", namespace);
    Ok(step)
}

/// kube-proxy's mode: as its rules on this node show it, else as its configuration says.
fn mode(facts: &Facts<'_>) -> Option<ProxyMode> {
    let seen = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref()).and_then(|r| r.mode);
    let configured = || {
        let config = facts.snapshot.objects.kube_proxy_config.as_ref()?.data.as_ref()?.get("config.conf")?;
        let value = config.lines().find_map(|l| l.trim().strip_prefix("mode:"))?;
        match value.trim().trim_matches(['"', '\'']) {
            "nftables" => Some(ProxyMode::Nftables),
            "ipvs" => Some(ProxyMode::Ipvs),
            _ => Some(ProxyMode::Iptables),
        }
    };
    seen.or_else(configured)
}
