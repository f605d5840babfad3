//! Told: the workload itself is what has to be mended, by whoever builds it.

use super::{arg, told};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Finding, Step, Text, Tier};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let subject = &finding.subject;
    let namespace = subject.namespace.as_deref().unwrap_or(&target.target.namespace);
    let command = match finding.code {
        // A crash says why in the log of the container that ended.
        Code(2004 | 2005) => format!("kubectl -n {namespace} logs {subject} --all-containers --previous"),
        Code(2300..=2399) => format!("kubectl -n {namespace} logs {subject} --all-containers"),
        _ => format!("kubectl -n {namespace} describe {subject}"),
    };
    let mut step = told(ActionName::MendWorkload, Tier::T3, target, finding, command, String::new());
    arg(&mut step, "object", subject);
    Ok(step)
}
