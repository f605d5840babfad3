//! Checks: from Facts to Findings. One check is one file, one code, one locale file, one fixture.
//!
//! A check cannot fail, wait, print or read a clock: its `run` is a plain function pointer. It claims only what it has
//! evidence for, so that a look with more gaps finds less, never something else (`tests/checks.rs` holds that; only a
//! note that a right is missing comes with its gap).

pub(crate) mod apart;
pub mod catalogue;
pub mod differential;
pub(crate) mod edge;
pub(crate) mod host_port;
pub(crate) mod mesh;
pub mod path;
pub(crate) mod proxy_log;
pub mod runner;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod stale;
pub(crate) mod wall;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, GapReason, Input, ObjectRef, Probe, Severity};

pub use catalogue::CATALOGUE;
pub use path::{HopState, PathHop, path};
pub use runner::{Report, run};

/// The hop of the path where a cause breaks it, in the order a packet passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hop {
    /// Browser, its machine and its network.
    Client,
    /// Security group, NAT, firewall before the node.
    Edge,
    Node,
    Service,
    ServiceProxy,
    /// Between the node that was dialled and the pod's node.
    PodNetwork,
    Pod,
}

/// One entry of the catalogue.
pub struct Check {
    pub code: Code,
    pub slug: &'static str,
    pub hop: Hop,
    /// The worst it says; `run` lowers it where the fault does not hurt (yet).
    pub severity: Severity,
    /// The surest it says.
    pub confidence: Confidence,
    /// What it reads. With a Gap in one of these it is skipped.
    pub inputs: &'static [Input],
    /// Inputs of which it needs one: skipped where all of them are Gaps.
    pub either: &'static [Input],
    /// What may repair it, best first.
    pub remedies: &'static [ActionName],
    /// Findings that are consequences of this one, or coarser words for it: left out where this one is as severe.
    pub explains: &'static [Code],
    pub run: fn(&Check, &Facts<'_>, &TargetFacts<'_>) -> Vec<Finding>,
}

/// A check that could not be made for a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    pub code: Code,
    pub input: Input,
    #[serde(flatten)]
    pub reason: GapReason,
}

/// What these say is that something could not be seen: they appear with a gap, and accuse nobody.
pub const ABOUT_THE_LOOK: [Code; 2] = [Code(202), Code(8001)];

/// The entry of that code.
pub fn find(code: Code) -> Option<&'static Check> {
    CATALOGUE.iter().find(|c| c.code == code)
}

impl Check {
    /// A finding as the catalogue has it, with the arguments that every text may use: `namespace`, `service`, `port`
    /// and `address` ("-" where one is not known).
    pub(crate) fn found(&self, target: &TargetFacts<'_>, subject: ObjectRef) -> Finding {
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        Finding {
            code: self.code,
            slug: self.slug.to_owned(),
            severity: self.severity,
            confidence: self.confidence,
            target: target.target.to_string(),
            subject,
            args: BTreeMap::from([
                ("namespace".to_owned(), target.target.namespace.clone()),
                ("service".to_owned(), target.target.service.clone()),
                ("port".to_owned(), known(target.reach.port.map(|p| p.to_string()))),
                ("address".to_owned(), known(target.reach.address.map(|a| a.url_host()))),
            ]),
            evidence: Vec::new(),
            remedies: self.remedies.to_vec(),
        }
    }
}

impl Finding {
    /// With one more argument for its texts; "-" stands for nothing.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        let value = Some(value.to_string()).filter(|v| !v.is_empty()).unwrap_or_else(|| "-".to_owned());
        self.args.insert(name.to_owned(), value);
        self
    }

    /// With one more piece of evidence.
    pub(crate) fn because(mut self, evidence: Evidence) -> Self {
        self.evidence.push(evidence);
        self
    }

    /// With the probes as evidence, the telling ones first, three at most.
    pub(crate) fn because_of<'p>(mut self, probes: impl IntoIterator<Item = &'p Probe>) -> Self {
        self.evidence.extend(probes.into_iter().take(3).map(|p| Evidence::Probe { probe: p.clone() }));
        self
    }

    pub(crate) fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub(crate) fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }
}

/// A field as evidence.
pub(crate) fn field(object: &ObjectRef, path: impl Into<String>, value: impl Into<Value>) -> Evidence {
    Evidence::Field { object: object.clone(), path: path.into(), value: value.into() }
}

/// What the application in a pod listens on, as evidence.
pub(crate) fn listeners(pod: &ObjectRef, sockets: &[SocketAddr]) -> Evidence {
    let sockets: Vec<String> = sockets.iter().map(SocketAddr::to_string).collect();
    field(pod, "listeners", sockets)
}

/// For a cause that is certain from the objects alone: an Error, unless the page answers all the same.
pub(crate) fn unless_it_answers(target: &TargetFacts<'_>) -> Severity {
    if target.reach.answers == Some(true) { Severity::Warning } else { Severity::Error }
}

/// For a cause that may or may not hurt: an Error only where all behind it is sound and the page is seen not to answer.
pub(crate) fn where_it_hurts(target: &TargetFacts<'_>) -> Severity {
    let hurts = target.stuck().is_some() && target.reach.answers == Some(false);
    if hurts { Severity::Error } else { Severity::Warning }
}

/// Whether this node's own rules still lead the nodePort to endpoints that are there, so that a missing kube-proxy
/// cannot be what breaks it. None where the rules of that node are not known.
pub(crate) fn rules_lead_right(facts: &Facts<'_>, target: &TargetFacts<'_>) -> Option<bool> {
    let rules = facts.snapshot.host.as_ref()?.rules.as_ref()?;
    let here = facts.snapshot.stand.node.as_deref()?;
    (target.reach.node == Some(here)).then_some(())?;
    let service = target.exposed()?;
    let rule = rules.node_port(service.node_port()?);
    Some(rule.is_some_and(|r| !r.backends.is_empty() && r.backends.iter().all(|b| service.leads_here(b))))
}
