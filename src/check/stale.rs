//! Whether this node's rules lead the nodePort to where its pods were, and nobody is about to bring them up to date.

use crate::facts::{Facts, TargetFacts, pod};
use crate::model::NodePortRule;

/// A kube-proxy that runs has this many seconds to follow a change before it counts as stuck.
pub(crate) const PATIENCE: i64 = 30;

/// A rule that leads nowhere right.
pub(crate) struct Stale<'s> {
    /// The node we stand on, which is the one that is dialled.
    pub node: &'s str,
    pub rule: &'s NodePortRule,
    /// No kube-proxy runs on that node.
    pub gone: bool,
}

/// The nodePort's rule on this node, where the page fails because none of what it leads to is an endpoint any more.
pub(crate) fn stale<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Option<Stale<'a>> {
    let service = target.stuck()?;
    let rules = facts.snapshot.host.as_ref()?.rules.as_ref()?;
    let node = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n))?;
    let rule = rules.node_port(service.node_port()?)?;
    let stale = rule.backends.iter().filter(|b| !service.leads_here(b)).count();
    // With externalTrafficPolicy Local a rule without backends is right on a node without pods.
    let rejects = rule.backends.is_empty() && rule.rejects && !service.is_local();
    let dead = (stale > 0 && stale == rule.backends.len()) || rejects;
    if !dead || target.reach.answers != Some(false) {
        return None;
    }
    let gone = facts.proxy.is_gone_from(node);
    let runs = facts.proxy.runs_on(node);
    (gone || (runs && !is_following(facts, target, node))).then_some(Stale { node, rule, gone })
}

/// Whether something changed so lately that a kube-proxy that is well may not have followed yet.
pub(crate) fn is_following(facts: &Facts<'_>, target: &TargetFacts<'_>, node: &str) -> bool {
    let now = facts.now();
    let Some(service) = &target.service else { return false };
    let mut changes = service.live_pods().flat_map(|p| [pod::age(p, now), pod::ready_for(p, now)]).flatten();
    changes.any(|age| age < PATIENCE)
        || service.unchanged_for(now).is_none_or(|s| s < PATIENCE)
        || facts.proxy.has_just_started(node, now, PATIENCE)
}
