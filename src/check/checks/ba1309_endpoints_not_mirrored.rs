//! BA1309: the endpoints were written by hand as an Endpoints object, and no EndpointSlice is made of them.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::service::SKIP_MIRROR;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1309),
    slug: "endpoints-not-mirrored",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Endpoints],
    either: &[],
    remedies: &[ActionName::MirrorEndpoints],
    // A Service without selector is meant to have such endpoints.
    explains: &[Code(1202)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.endpoints.is_empty()) else { return Vec::new() };
    if service.selector().is_some_and(|s| !s.is_empty()) {
        return Vec::new();
    }
    let written = facts.snapshot.objects.endpoints.iter().find(|e| {
        e.metadata.name.as_deref() == Some(&target.target.service)
            && e.metadata.namespace.as_deref() == Some(&target.target.namespace)
    });
    let Some(written) = written else { return Vec::new() };
    let mut addresses = written.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten());
    let skipped = written.metadata.labels.as_ref().and_then(|l| l.get(SKIP_MIRROR)).is_some_and(|v| v == "true");
    let (Some(first), true) = (addresses.next(), skipped) else { return Vec::new() };
    let object = ObjectRef::namespaced("Endpoints", &target.target.namespace, &target.target.service);
    let found = check
        .found(target, object.clone())
        .with("ip", &first.ip)
        .severity(unless_it_answers(target))
        .because(field(&object, format!("metadata.labels[{SKIP_MIRROR}]"), "true"))
        .because(field(&object, "subsets[0].addresses[0].ip", first.ip.as_str()));
    vec![found.because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn by_hand(labels: serde_json::Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["selector"] = json!(null);
        *sample.objects("endpointSlices") = json!([]);
        sample.0["objects"]["endpoints"] = json!([{
            "metadata": {"name": "productpage", "namespace": "bookinfo", "labels": labels},
            "subsets": [{"addresses": [{"ip": "10.244.1.7"}], "ports": [{"name": "http", "port": 9080}]}]}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn what_is_not_mirrored_is_not_seen() {
        assert_eq!(by_hand(json!({super::SKIP_MIRROR: "true"})).said(), [(1309, Severity::Error)]);
    }

    #[test]
    fn without_the_label_something_else_keeps_the_slices_from_being_made() {
        assert_eq!(by_hand(json!({})).said(), [(1202, Severity::Error)]);
    }
}
