//! BA0202: the page does not answer, and this user may not read all that would say why.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, GapReason, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(202),
    slug: "missing-rights",
    hop: Hop::Client,
    // No cause: what kept a cause from being seen, perhaps.
    severity: Severity::Info,
    confidence: Confidence::Certain,
    inputs: &[],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    if target.reach.answers == Some(true) {
        return Vec::new();
    }
    let mut missing: Vec<(&str, &str)> = facts.snapshot.gaps.iter().filter_map(|g| denied(&g.reason)).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Vec::new();
    }
    let rights: Vec<String> = missing.iter().map(|(verb, resource)| format!("{verb} {resource}")).collect();
    let object = ObjectRef::cluster("User", "kubeconfig");
    let found = check.found(target, object.clone()).with("rights", rights.join(", "));
    vec![found.because(field(&object, "denied", rights))]
}

fn denied(reason: &GapReason) -> Option<(&str, &str)> {
    match reason {
        GapReason::Denied { verb, resource } => Some((verb, resource)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{GapReason, Input, Severity};
    use serde_json::json;

    fn viewer() -> Sample {
        let mut sample = Sample::from_laptop();
        for (input, verb, resource) in
            [(Input::NodeProxy, "get", "nodes/proxy"), (Input::PortForward, "create", "pods/portforward")]
        {
            sample.gap(input, GapReason::Denied { verb: verb.into(), resource: resource.into() });
        }
        sample.blind("nodeProxy");
        sample.blind("portForward");
        sample
    }

    #[test]
    fn the_cause_leads_and_the_rights_follow() {
        let mut sample = viewer();
        sample.service()["spec"]["type"] = json!("ClusterIP");
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(null);
        sample.answer(json!({"outcome": "refused"}));
        let said = sample.said();
        assert_eq!(said.first(), Some(&(1002, Severity::Error)));
        assert!(said.contains(&(202, Severity::Info)));
        assert_eq!(sample.finding(202).arg("rights"), "create pods/portforward, get nodes/proxy");
    }

    #[test]
    fn while_the_page_answers_nobody_misses_them() {
        assert_eq!(viewer().said(), []);
    }
}
