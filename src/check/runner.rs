//! Runs the catalogue and puts the findings in order: the first break on the path leads.

use std::cmp::Reverse;

use super::{CATALOGUE, Check, Skipped, find};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Finding, Gap, Severity};
use crate::parts::in_parts;

/// What all checks together say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// By target in the Snapshot's order; within a target errors first, the cause before its consequences.
    pub findings: Vec<Finding>,
    pub skipped: Vec<Skipped>,
}

/// What may be said of a Service that was only discovered and is no NodePort: that it is none, as a note.
const NOTES: [Code; 3] = [Code(1002), Code(1003), Code(1004)];

/// Runs every check on every target.
pub fn run(facts: &Facts<'_>) -> Report {
    let mut report = Report::default();
    for part in in_parts(&facts.targets, |part| on_targets(facts, part)) {
        report.findings.extend(part.findings);
        part.skipped.into_iter().for_each(|skip| once(&mut report.skipped, skip));
    }
    report
}

fn on_targets(facts: &Facts<'_>, targets: &[TargetFacts<'_>]) -> Report {
    let mut report = Report::default();
    for target in targets {
        let mut findings = on_target(facts, target, &mut report.skipped);
        let all = findings.clone();
        findings.retain(|f| !all.iter().any(|other| other.severity >= f.severity && explains(other.code, f.code)));
        findings.sort_by_key(rank);
        report.findings.extend(findings);
    }
    report
}

/// Everything that every check claims of every target, consequences included.
pub fn claims(facts: &Facts<'_>) -> Vec<Finding> {
    facts.targets.iter().flat_map(|target| on_target(facts, target, &mut Vec::new())).collect()
}

fn on_target(facts: &Facts<'_>, target: &TargetFacts<'_>, skipped: &mut Vec<Skipped>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in CATALOGUE.iter().filter(|c| !target.is_note() || NOTES.contains(&c.code)) {
        if let Some(gap) = missing(check, facts, target) {
            let skip = Skipped { code: check.code, input: gap.input, reason: gap.reason.clone() };
            once(skipped, skip);
            continue;
        }
        findings.extend((check.run)(check, facts, target));
    }
    findings
}

fn once(skipped: &mut Vec<Skipped>, skip: Skipped) {
    if !skipped.contains(&skip) {
        skipped.push(skip);
    }
}

/// The gap that makes a check impossible.
fn missing<'a>(check: &Check, facts: &Facts<'a>, target: &TargetFacts<'_>) -> Option<&'a Gap> {
    let gap = |input: &crate::model::Input| facts.gap(*input, target.target);
    let required = check.inputs.iter().find_map(gap);
    let either: Vec<_> = check.either.iter().map(gap).collect();
    let none_of_them = either.iter().all(Option::is_some).then(|| either.into_iter().flatten().next()).flatten();
    required.or(none_of_them)
}

fn explains(cause: Code, consequence: Code) -> bool {
    find(cause).is_some_and(|c| c.explains.contains(&consequence))
}

/// Worst first, then surest, then in the order a packet meets them.
fn rank(finding: &Finding) -> (Reverse<Severity>, Reverse<crate::model::Confidence>, Option<super::Hop>, Code) {
    let hop = find(finding.code).map(|c| c.hop);
    (Reverse(finding.severity), Reverse(finding.confidence), hop, finding.code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::sample::Sample;
    use crate::model::{GapReason, Input};
    use serde_json::json;

    #[test]
    fn a_check_without_its_input_is_skipped_and_says_why() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("ClusterIP");
        sample.gap(Input::Services, GapReason::Denied { verb: "list".into(), resource: "services".into() });
        let report = sample.report();
        assert_eq!(report.findings, []);
        assert!(report.skipped.iter().any(|s| s.code == Code(1002) && s.input == Input::Services));
    }

    #[test]
    fn the_catalogue_is_sorted_and_each_code_stands_once() {
        let codes: Vec<Code> = CATALOGUE.iter().map(|c| c.code).collect();
        assert!(codes.windows(2).all(|w| w[0] < w[1]), "{codes:?}");
        for check in CATALOGUE {
            assert!(check.explains.iter().all(|c| codes.contains(c) && *c != check.code), "{}", check.code);
        }
    }
}
