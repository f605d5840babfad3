//! BA1004: the Service is headless, so kube-proxy leaves it alone.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1004),
    slug: "headless",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    // The API server lets nobody change clusterIP, so another Service has to stand beside it.
    remedies: &[ActionName::SiblingService, ActionName::CreateService],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    if !target.service.as_ref().is_some_and(|s| s.is_headless()) {
        return Vec::new();
    }
    let object = target.target.service_ref();
    let severity = if target.is_note() { Severity::Info } else { unless_it_answers(target) };
    vec![check.found(target, object.clone()).severity(severity).because(field(&object, "spec.clusterIP", "None"))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn it_is_not_taken_for_an_ordinary_cluster_ip() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("ClusterIP");
        sample.service()["spec"]["clusterIP"] = json!("None");
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(null);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1004, Severity::Error)]);
    }
}
