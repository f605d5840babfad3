//! BA1203: the selector also matches pods of another application, which answers some of the connections.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, ServiceFacts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1203),
    slug: "selector-too-wide",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::Selector],
    // A client kept on a pod is kept on a stranger's.
    explains: &[Code(1303), Code(2306), Code(3018)],
    run,
};

/// Labels that name an application, best first. Versions side by side share them.
const APPLICATION: [&str; 3] = ["app", "app.kubernetes.io/name", "k8s-app"];

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let applications = applications(service);
    let probes = |pods: &[&Pod]| -> Vec<&Probe> {
        pods.iter().flat_map(|p| target.reach.to_pod(pod::name(p)).collect::<Vec<_>>()).collect()
    };
    let right = |pods: &[&Pod]| probes(pods).iter().any(|p| p.outcome.is_right());
    let wrong = |pods: &[&Pod]| {
        let asked = probes(pods);
        asked.iter().any(|p| is_telling(&p.outcome)) && !asked.iter().any(|p| p.outcome.is_right())
    };
    // The page is what answers rightly; where nobody asked the pods, what has the Service's name.
    let proven: BTreeSet<&str> = applications.iter().filter(|(_, pods)| right(pods)).map(|(name, _)| *name).collect();
    let caught = |name: &str, pods: &[&Pod]| !proven.is_empty() && !proven.contains(name) && wrong(pods);
    let of_name = |name: &str| is_near(name, &target.target.service);
    let named = applications.keys().any(|name| *name == target.target.service);
    let strangers: Vec<(&str, &[&Pod])> = applications
        .iter()
        .filter(|(name, pods)| caught(name, pods) || (named && !of_name(name)))
        .map(|(name, pods)| (*name, pods.as_slice()))
        .collect();
    let Some((_, first)) = strangers.first() else { return Vec::new() };
    let certain = strangers.iter().any(|(name, pods)| caught(name, pods));
    let hurts = certain && target.reach.answers == Some(false);
    let own = proven.first().copied().filter(|_| certain).unwrap_or(&target.target.service);
    let narrow = applications.get(own).and_then(|pods| identity(pods.first()?));
    let object = target.target.service_ref();
    let others = strangers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let selector = service.selector().into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    let mut found = check
        .found(target, object.clone())
        .with("selector", selector.join(","))
        .with("others", others)
        .with("narrow", narrow.map(|(key, value)| format!("{key}={value}")).unwrap_or_default())
        .severity(if hurts { Severity::Error } else { Severity::Warning })
        .confidence(if certain { Confidence::Certain } else { Confidence::Likely })
        .because(field(&object, "spec.selector", serde_json::json!(service.selector())));
    if let Some(stranger) = first.first() {
        let object = ObjectRef::namespaced("Pod", &target.target.namespace, pod::name(stranger));
        found = found.because(field(&object, "metadata.labels", serde_json::json!(stranger.metadata.labels)));
    }
    let strange = strangers.iter().flat_map(|(_, pods)| probes(pods)).filter(|p| is_telling(&p.outcome));
    vec![found.because_of(strange)]
}

/// Pods that take connections, by the application that their labels name.
fn applications<'a>(service: &ServiceFacts<'a>) -> BTreeMap<&'a str, Vec<&'a Pod>> {
    let mut found: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for name in service.usable().filter_map(|e| e.pod) {
        let Some(pod) = service.pods.iter().copied().find(|p| pod::name(p) == name) else { continue };
        if let Some((_, value)) = identity(pod) {
            found.entry(value).or_default().push(pod);
        }
    }
    found
}

fn identity(pod: &Pod) -> Option<(&str, &str)> {
    let labels = pod.metadata.labels.as_ref()?;
    APPLICATION.iter().find_map(|key| labels.get_key_value(*key)).map(|(k, v)| (k.as_str(), v.as_str()))
}

/// `productpage` and `productpage-canary` are the same page.
fn is_near(name: &str, service: &str) -> bool {
    name.starts_with(service) || service.starts_with(name)
}

/// An answer that a pod of the page does not give.
fn is_telling(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Http { right: false, .. } | Outcome::NotHttp | Outcome::Refused)
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn wide() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["selector"] = json!({"version": "v1"});
        let details = json!({"addresses": ["10.244.1.8"], "nodeName": "w1", "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "details-v1-5f4d-fghij"}});
        if let Some(endpoints) = sample.objects("endpointSlices")[0]["endpoints"].as_array_mut() {
            endpoints.push(details);
        }
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!(["10.244.1.7:9080", "10.244.1.8:9080"]);
        sample
    }

    #[test]
    fn a_stranger_that_answers_is_named() {
        let mut sample = wide();
        let strange = json!({"vantage": "podProxy", "target": "bookinfo/productpage", "port": 9080, "millis": 2,
            "host": "bookinfo/details-v1-5f4d-fghij", "pod": "details-v1-5f4d-fghij", "outcome": "http",
            "status": 404, "right": false});
        sample.probe(strange);
        sample.answer(json!({"outcome": "http", "status": 404, "right": false}));
        assert_eq!(sample.said(), [(1203, Severity::Error)]);
        let found = sample.finding(1203);
        assert_eq!((found.arg("others"), found.arg("narrow")), ("details", "app=productpage"));
        assert_eq!(found.confidence, Confidence::Certain);
    }

    #[test]
    fn a_page_that_answers_this_time_is_a_warning() {
        assert_eq!(wide().said(), [(1203, Severity::Warning)]);
        assert_eq!(wide().finding(1203).confidence, Confidence::Likely);
    }
}
