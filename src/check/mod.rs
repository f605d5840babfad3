//! Checks: from Facts to Findings. One check is one file, one code, one locale file, one fixture.
//!
//! A check cannot fail, wait, print or read a clock: its `run` is a plain function pointer.

pub mod path;
pub mod runner;

use serde::{Deserialize, Serialize};

use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, GapReason, Input, Severity};

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
    pub severity: Severity,
    pub confidence: Confidence,
    /// What it reads. With a Gap in one of these it is skipped.
    pub inputs: &'static [Input],
    /// What may repair it, best first.
    pub remedies: &'static [ActionName],
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
