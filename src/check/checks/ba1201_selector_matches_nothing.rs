//! BA1201: the selector matches no pod, and no Deployment makes such pods.

use std::collections::BTreeMap;

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, service};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1201),
    slug: "selector-matches-nothing",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::Pods, Input::Deployments, Input::EndpointSlices],
    either: &[],
    remedies: &[ActionName::Selector],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let Some(selector) = service.selector().filter(|s| !s.is_empty()) else { return Vec::new() };
    if !service.pods.is_empty() || service.deployment_matches || service.usable().next().is_some() {
        return Vec::new();
    }
    let object = target.target.service_ref();
    let mended = service.mended_selector();
    let near = service.deployment.filter(|_| mended.is_some());
    let name = near.and_then(|d| d.metadata.name.as_deref()).unwrap_or_default();
    let found = check
        .found(target, object.clone())
        .with("selector", say(selector))
        .with("deployment", name)
        .with("nearest", mended.as_ref().map(say).unwrap_or_default())
        .severity(unless_it_answers(target))
        // A workload that is not looked at, such as a StatefulSet, could have been meant.
        .confidence(if near.is_some() { Confidence::Certain } else { Confidence::Likely });
    let mut found = found.because(field(&object, "spec.selector", serde_json::json!(selector)));
    if let Some(labels) = near.and_then(service::template_labels) {
        let workload = ObjectRef::namespaced("Deployment", &target.target.namespace, name);
        found = found.because(field(&workload, "spec.template.metadata.labels", serde_json::json!(labels)));
    }
    let none = Evidence::Count { object, what: "endpoints".to_owned(), have: 0, want: 1 };
    vec![found.because(none).because_of(target.reach.failure())]
}

fn say(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn selecting(selector: serde_json::Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["selector"] = selector;
        sample.objects("endpointSlices")[0]["endpoints"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_nearest_labels_are_named() {
        let sample = selecting(json!({"app": "productpge"}));
        assert_eq!(sample.said(), [(1201, Severity::Error)]);
        assert_eq!(sample.finding(1201).arg("nearest"), "app=productpage");
        assert_eq!(selecting(json!({"apps": "productpage"})).finding(1201).arg("nearest"), "app=productpage");
    }

    #[test]
    fn nothing_near_is_less_sure() {
        let mut sample = selecting(json!({"app": "elsewhere"}));
        sample.objects("deployments")[0]["metadata"]["name"] = json!("other");
        let found = sample.finding(1201);
        assert_eq!((found.confidence, found.arg("nearest")), (Confidence::Likely, "-"));
    }

    #[test]
    fn endpoints_written_by_hand_need_no_pods() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["selector"] = json!(null);
        assert_eq!(sample.said(), []);
    }
}
