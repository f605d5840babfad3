//! Told: a node that is not Ready, seen to on the node itself.

use super::{arg, told};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, Step, Text, Tier};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let node = finding.subject.name.clone();
    let command = "sudo systemctl restart kubelet && sudo journalctl -u kubelet -n 50 --no-pager".to_owned();
    let mut step = told(ActionName::MendNode, Tier::T5, target, finding, command, String::new());
    arg(&mut step, "node", node);
    Ok(step)
}
