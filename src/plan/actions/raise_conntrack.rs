//! Told: room for more tracked connections; the limit belongs to the whole machine, and its memory with it.

use super::{arg, told};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, Step, Text, Tier};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let most: u64 = finding.arg("most").parse().map_err(|_| Text::new("action.set-kernel.unknown"))?;
    let set = |value: u64| format!("sudo sysctl -w net.netfilter.nf_conntrack_max={value}");
    let (command, undo) = (set(most.saturating_mul(2)), set(most));
    let mut step = told(ActionName::RaiseConntrack, Tier::T5, target, finding, command, undo);
    arg(&mut step, "node", &finding.subject.name);
    arg(&mut step, "most", most.saturating_mul(2));
    Ok(step)
}
