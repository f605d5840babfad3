//! BA1002: the Service is a ClusterIP, so no node opens a port for it.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1002),
    slug: "cluster-ip",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[ActionName::ServiceNodePort],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    if service.kind() != "ClusterIP" || service.is_headless() {
        return Vec::new();
    }
    let object = target.target.service_ref();
    let severity = if target.is_note() { Severity::Info } else { unless_it_answers(target) };
    let found = check.found(target, object.clone()).severity(severity);
    vec![found.because(field(&object, "spec.type", service.kind())).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn cluster_ip() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("ClusterIP");
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(null);
        sample
    }

    #[test]
    fn it_is_the_only_thing_said_of_a_page_that_does_not_answer() {
        let mut sample = cluster_ip();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1002, Severity::Error)]);
    }

    #[test]
    fn a_discovered_service_gets_a_note() {
        let mut sample = cluster_ip();
        sample.service()["metadata"]["name"] = json!("grafana");
        sample.0["targets"][0]["service"] = json!("grafana");
        assert_eq!(sample.said(), [(1002, Severity::Info)]);
    }

    #[test]
    fn a_page_that_answers_by_another_way_is_no_error() {
        assert_eq!(cluster_ip().said(), [(1002, Severity::Warning)]);
    }
}
