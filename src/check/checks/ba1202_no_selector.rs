//! BA1202: the Service selects no pods, and nobody wrote endpoints for it by hand.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, service};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1202),
    slug: "no-selector",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[],
    remedies: &[ActionName::Selector],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.kind() != "ExternalName") else { return Vec::new() };
    if service.selector().is_some_and(|s| !s.is_empty()) || !service.endpoints.is_empty() {
        return Vec::new();
    }
    let object = target.target.service_ref();
    let named = service.deployment.and_then(|d| Some((d.metadata.name.as_deref()?, service::template_labels(d)?)));
    let labels = named.map(|(_, labels)| labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","));
    let mut found = check
        .found(target, object.clone())
        .with("deployment", named.map(|(name, _)| name).unwrap_or_default())
        .with("labels", labels.unwrap_or_default())
        .severity(unless_it_answers(target))
        .because(field(&object, "spec.selector", serde_json::Value::Null))
        .because(Evidence::Count { object, what: "endpoints".to_owned(), have: 0, want: 1 });
    match named {
        Some((name, labels)) => {
            let workload = ObjectRef::namespaced("Deployment", &target.target.namespace, name);
            found = found.because(field(&workload, "spec.template.metadata.labels", serde_json::json!(labels)));
        }
        // Nobody knows which pods were meant.
        None => found.remedies.clear(),
    }
    vec![found.because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{ActionName, Severity};
    use serde_json::json;

    fn selecting_nothing() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["selector"] = json!({});
        *sample.objects("endpointSlices") = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_deployment_of_the_same_name_is_suggested() {
        let sample = selecting_nothing();
        assert_eq!(sample.said(), [(1202, Severity::Error)]);
        let found = sample.finding(1202);
        assert_eq!(
            (found.arg("deployment"), found.remedies.as_slice()),
            ("productpage-v1", &[ActionName::Selector][..])
        );
    }

    #[test]
    fn without_one_only_a_person_knows() {
        let mut sample = selecting_nothing();
        sample.deployment()["metadata"]["name"] = json!("shop");
        assert_eq!(sample.finding(1202).remedies, []);
    }
}
