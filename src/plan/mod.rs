//! From findings to a plan: which steps, in which order, and which are withheld.

pub mod actions;
mod lines;
pub mod patch;
pub mod planner;
#[cfg(test)]
mod repair_tests;
pub mod simulate;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;

use crate::model::{ActionName, Allow, Code};

pub use planner::{carries_at_once, plan};

/// What the user granted, and what was tried before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub allow: BTreeSet<Allow>,
    /// Whether a fallback path may be opened (`--no-fallback` forbids it).
    pub fallback: bool,
    /// A fallback of ours for this target runs already: `namespace/service`.
    pub standing: BTreeSet<String>,
    /// Rungs that did not help in this run: never tried twice.
    pub tried: BTreeSet<(Code, ActionName)>,
}
