//! What a firewall of this node does to the page's packets, as a finding.

use crate::check::Check;
use crate::facts::passage::{Part, Stopped};
use crate::facts::{Facts, TargetFacts, passage};
use crate::model::{Confidence, Evidence, Finding, ObjectRef};

/// The first barrier on the packets' way that is of the wanted kind.
pub(crate) fn first<'a>(
    facts: &Facts<'a>,
    target: &TargetFacts<'a>,
    wanted: impl Fn(&Stopped<'a>) -> bool,
) -> Option<Stopped<'a>> {
    passage::stopped(facts, target).into_iter().find(|s| wanted(s))
}

/// Whether packets that came through the translation are stopped.
pub(crate) fn is_behind_translation(stopped: &Stopped<'_>) -> bool {
    stopped.part != Part::BeforeTranslation
}

/// The finding with the barrier as evidence; arguments `node`, `chain` and `rule`.
pub(crate) fn found(check: &Check, target: &TargetFacts<'_>, stopped: &Stopped<'_>) -> Finding {
    let barrier = &stopped.barrier;
    // A policy belongs to the chain that the packet entered, a rule to the one that holds it.
    let (chain, rule) = match barrier.rule {
        Some(rule) => (barrier.chain.title(), rule.text.clone()),
        None => (barrier.base.title(), "policy DROP".to_owned()),
    };
    let confidence = barrier.confidence().unwrap_or(Confidence::Possible).min(check.confidence);
    let evidence = Evidence::Barrier {
        node: stopped.node.to_owned(),
        chain: chain.clone(),
        rule: rule.clone(),
        packets: barrier.risen().filter(|n| *n > 0),
    };
    let found = check.found(target, ObjectRef::cluster("Node", stopped.node)).with("node", stopped.node);
    let found = found.with("chain", chain).with("rule", rule).confidence(confidence).because(evidence);
    found.because_of(target.reach.failure())
}
