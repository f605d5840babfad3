//! What a diagnosis shows, as plain data: made once from Facts and findings, then written as text, JSON or YAML.

use serde::Serialize;

use crate::check::{PathHop, Report, Skipped, path};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Finding, Gap, Plan, Severity, Target};

/// One diagnosis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diagnosis {
    pub targets: Vec<TargetView>,
    pub findings: Vec<Finding>,
    /// What would be done about them, with commands and their inverses.
    pub plan: Plan,
    pub skipped: Vec<Skipped>,
    pub gaps: Vec<Gap>,
    /// Whether the command runs on a node of the cluster.
    pub on_node: bool,
}

/// One target, as far as anybody could look.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetView {
    /// `namespace/service`.
    pub target: String,
    /// What to type into a browser; none where no address or no port is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the page answers there; none where nobody could look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    pub path: Vec<PathHop>,
}

impl Diagnosis {
    /// Puts it together.
    pub fn of(facts: &Facts<'_>, report: &Report, plan: Plan) -> Self {
        let target = |t: &TargetFacts<'_>| TargetView {
            target: t.target.to_string(),
            url: url(t),
            port: t.reach.port,
            reachable: t.reach.answers,
            path: path(facts, t, &report.findings),
        };
        Self {
            targets: facts.targets.iter().map(target).collect(),
            findings: report.findings.clone(),
            plan,
            skipped: report.skipped.clone(),
            gaps: facts.snapshot.gaps.clone(),
            on_node: facts.snapshot.stand.node.is_some(),
        }
    }

    /// Whether this target has a finding that breaks access.
    pub fn is_broken(&self, target: &TargetView) -> bool {
        self.findings.iter().any(|f| f.target == target.target && f.severity == Severity::Error)
    }

    /// How many findings of that severity there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }
}

/// The URL of a target at the address a browser should use.
pub fn url(target: &TargetFacts<'_>) -> Option<String> {
    let address = target.reach.address?;
    Some(format!("http://{}:{}{}", address.url_host(), target.reach.port?, page(target.target)))
}

/// The path a person opens: a health endpoint is for probes, its application's front page for people.
fn page(target: &Target) -> &str {
    if target.path.ends_with("/health") { "/" } else { &target.path }
}
