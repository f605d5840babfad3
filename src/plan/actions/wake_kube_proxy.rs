//! Makes a live kube-proxy write its rules again, by a throw-away Service: no pod is restarted.

use super::{arg, blank, entry_node};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Act, ActionName, Finding, ProxyMode, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    // In nftables mode kube-proxy trusts its own memory of the map elements until its hourly full sync.
    let seen = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref()).and_then(|r| r.mode);
    if seen.or(facts.proxy.configured_mode) == Some(ProxyMode::Nftables) {
        return Err(Text::new("action.wake-kube-proxy.nftables"));
    }
    let on = entry_node(facts, target).map(node::name).unwrap_or_default();
    if !facts.proxy.runs_on(on) {
        return Err(Text::new("action.wake-kube-proxy.not_there").with("node", on));
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
