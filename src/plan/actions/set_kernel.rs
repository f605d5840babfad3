//! Changes one setting of the node's kernel: what the finding names, until the next start.

use super::{arg, on_node};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, NodeSetting, Step, Text};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let value = |name: &str| Some(finding.arg(name)).filter(|v| !v.is_empty() && *v != "-").map(str::to_owned);
    let (Some(name), Some(from), Some(to)) = (value("setting"), value("from"), value("to")) else {
        return Err(Text::new("action.set-kernel.unknown"));
    };
    let shown = format!("{name}: {from} -> {to}");
    let setting = NodeSetting::Sysctl { name, from, to };
    let node = &finding.subject.name;
    let mut step = on_node(ActionName::SetKernel, facts, target, finding, node, vec![setting]);
    arg(&mut step, "setting", shown);
    Ok(step)
}
