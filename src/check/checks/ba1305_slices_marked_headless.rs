//! BA1305: the EndpointSlices carry the label of headless Services, so kube-proxy does not see them.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1305),
    slug: "slices-marked-headless",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[],
    // The slices belong to whoever wrote them.
    remedies: &[],
    explains: &[Code(3018), Code(3019), Code(3020), Code(6001)],
    run,
};

/// kube-proxy watches only EndpointSlices without this label (cmd/kube-proxy/app/server.go).
const LABEL: &str = "service.kubernetes.io/headless";

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed().filter(|s| s.is_sound()) else { return Vec::new() };
    let own = facts.index.slices(&target.target.namespace, &target.target.service).iter();
    let (mut hidden, seen): (Vec<&EndpointSlice>, Vec<&EndpointSlice>) = own.copied().partition(|s| is_marked(s));
    // One slice that kube-proxy sees is enough to reach the page.
    let leads = |s: &&EndpointSlice| {
        let ready = |conditions: Option<bool>| conditions.unwrap_or(true);
        s.endpoints.iter().any(|e| ready(e.conditions.as_ref().and_then(|c| c.ready)))
    };
    hidden.retain(leads);
    hidden.sort_by_key(|s| s.metadata.name.as_deref());
    if hidden.is_empty() || seen.iter().any(leads) {
        return Vec::new();
    }
    let name = |s: &EndpointSlice| s.metadata.name.clone().unwrap_or_default();
    let names = hidden.iter().map(|s| name(s)).collect::<Vec<_>>().join(" ");
    let mut found = check
        .found(target, target.target.service_ref())
        .with("slices", names)
        .with("cluster_ip", service.spec().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default())
        .severity(unless_it_answers(target));
    for slice in hidden.iter().take(3) {
        let object = ObjectRef::namespaced("EndpointSlice", &target.target.namespace, &name(slice));
        found = found.because(field(&object, "metadata.labels", serde_json::json!({LABEL: ""})));
    }
    vec![found.because_of(target.reach.failure())]
}

/// Whatever the label's value, its presence counts.
fn is_marked(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().is_some_and(|l| l.contains_key(LABEL))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn marked() -> Sample {
        let mut sample = Sample::healthy();
        sample.objects("endpointSlices")[0]["metadata"]["labels"][super::LABEL] = json!("");
        sample.0["host"]["rules"]["nodePorts"][0] = json!({"port": 30080, "backends": [], "rejects": true});
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn rules_that_reject_are_its_consequence() {
        assert_eq!(marked().said(), [(1305, Severity::Error)]);
    }

    #[test]
    fn a_slice_beside_it_that_kube_proxy_sees_is_enough() {
        let mut sample = marked();
        let mut second = sample.objects("endpointSlices")[0].clone();
        second["metadata"]["name"] = json!("productpage-second");
        second["metadata"]["labels"] = json!({"kubernetes.io/service-name": "productpage"});
        sample.add("endpointSlices", second);
        assert!(sample.said().iter().all(|(code, _)| *code != 1305));
    }
}
