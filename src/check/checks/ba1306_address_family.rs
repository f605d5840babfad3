//! BA1306: browsers dial an address of an IP family that the Service does not serve.

use std::net::IpAddr;

use crate::check::{Check, Hop, field};
use crate::facts::endpoints::family;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1306),
    slug: "address-family",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[],
    remedies: &[ActionName::IpFamily],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let sound = target.exposed().filter(|s| s.is_sound());
    let (Some(service), Some(address)) = (sound, target.reach.address) else { return Vec::new() };
    let families = service.spec().and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    let wanted = family(address.ip);
    if service.serves(address.ip) {
        return Vec::new();
    }
    let dialled = |probe: &&Probe| probe.host.parse::<IpAddr>().is_ok_and(|ip| family(ip) == wanted);
    let severity = match target.reach.answers {
        Some(false) => Severity::Error,
        // Only the other family was dialled: of this one nothing is known.
        Some(true) if !target.reach.decisive.iter().any(dialled) => Severity::Warning,
        _ => return Vec::new(),
    };
    let object = target.target.service_ref();
    let found = check
        .found(target, object.clone())
        .with("wanted", wanted)
        .with("families", families.join(", "))
        .severity(severity);
    if !families.is_empty() && families.iter().all(|f| f != wanted) {
        let families = field(&object, "spec.ipFamilies", serde_json::json!(families));
        return vec![found.because(families).because_of(target.reach.failure())];
    }
    let mut own = facts.index.slices(&target.target.namespace, &target.target.service).to_vec();
    own.sort_by_key(|s| s.metadata.name.as_deref());
    let types = own.iter().take(3).map(|slice| {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let object = ObjectRef::namespaced("EndpointSlice", &target.target.namespace, name);
        field(&object, "addressType", slice.address_type.as_str())
    });
    vec![types.fold(found, Finding::because).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn from_ipv6() -> Sample {
        let mut sample = Sample::from_laptop();
        sample.service()["spec"]["ipFamilies"] = json!(["IPv4"]);
        sample.0["addresses"] = json!([{"ip": "2001:db8::10", "source": "flag", "node": "cp1"}]);
        for probe in sample.0["probes"].as_array_mut().into_iter().flatten() {
            if probe["host"] == json!("203.0.113.10") {
                probe["host"] = json!("2001:db8::10");
            }
        }
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn a_refusal_at_the_other_family_is_explained() {
        assert_eq!(from_ipv6().said(), [(1306, Severity::Error)]);
    }

    #[test]
    fn a_service_of_both_families_is_right() {
        let mut sample = from_ipv6();
        sample.service()["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        sample.objects("endpointSlices")[0]["endpoints"][0]["addresses"] = json!(["fd00::7"]);
        assert!(sample.said().iter().all(|(code, _)| *code != 1306));
    }

    #[test]
    fn what_answers_has_its_reasons() {
        let mut sample = from_ipv6();
        sample.answer(json!({"outcome": "http", "status": 200, "right": true}));
        assert_eq!(sample.said(), []);
    }
}
