//! BA1003: the Service is an ExternalName, a DNS alias without any port of its own.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1003),
    slug: "external-name",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[ActionName::SiblingService, ActionName::CreateService],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.kind() == "ExternalName") else { return Vec::new() };
    let alias = service.service.spec.as_ref().and_then(|s| s.external_name.as_deref()).unwrap_or_default();
    let object = target.target.service_ref();
    let severity = if target.is_note() { Severity::Info } else { unless_it_answers(target) };
    let found = check.found(target, object.clone()).with("external_name", alias).severity(severity);
    vec![found.because(field(&object, "spec.type", "ExternalName")).because(field(&object, "spec.externalName", alias))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use serde_json::json;

    #[test]
    fn the_alias_is_named() {
        let mut sample = Sample::healthy();
        sample.service()["spec"] = json!({"type": "ExternalName", "externalName": "books.example.com"});
        assert_eq!(sample.finding(1003).arg("external_name"), "books.example.com");
    }
}
