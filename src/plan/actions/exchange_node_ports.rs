//! Gives the nodePort that browsers dial to the page's port, and the page's to the port that held it.

use serde_json::Value;

use super::{arg, identify, patching, service};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?;
    let unclear = || Text::new("action.exchange-node-ports.unclear").with("service", target.target);
    let index = |name: &str| finding.arg(name).parse::<usize>().ok();
    let (held, page) = index("held_index").zip(index("page_index")).filter(|(a, b)| a != b).ok_or_else(unclear)?;
    let ports = service.spec().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let number = |at: usize| ports.get(at).and_then(|p| p.node_port).filter(|n| *n != 0);
    let (wanted, other) = number(held).zip(number(page)).ok_or_else(unclear)?;
    let change = |at: usize, from: i32, to: i32| Change {
        path: format!("/spec/ports/{at}/nodePort"),
        from: Some(Value::from(from)),
        to: Some(Value::from(to)),
    };
    let changes = vec![change(held, wanted, other), change(page, other, wanted)];
    let object = identify("Service", &service.service.metadata);
    let mut step = patching(ActionName::ExchangeNodePorts, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "port", wanted);
    arg(&mut step, "other", other);
    arg(&mut step, "page", finding.arg("page"));
    Ok(step)
}
