//! BA1102: the targetPort is a name that no container declares.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, nearest, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, PortRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1102),
    slug: "target-port-name-unknown",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::TargetPort],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let (Some(PortRef::Name(name)), Some((index, _))) = (service.target_port(), service.port) else {
        return Vec::new();
    };
    // The slices are the controller's own word on it: a port that is there was found in some pod.
    if service.containers.is_empty() || service.endpoints.iter().any(|e| e.port.is_some()) {
        return Vec::new();
    }
    let declared = pod::declared_ports(&service.containers);
    let everywhere = service.live_pods().flat_map(|p| pod::declared_ports(pod::containers(p)));
    if declared.iter().copied().chain(everywhere).any(|(n, _)| n == name) {
        return Vec::new();
    }
    let names = declared.iter().map(|(n, _)| *n).filter(|n| !n.is_empty());
    let number = name.parse::<u16>().ok().filter(|n| declared.iter().any(|(_, p)| p == n));
    let suggestion = number
        .map(|n| n.to_string())
        .or_else(|| nearest::name(&name, names).map(str::to_owned))
        .or_else(|| service.likely_container_port().map(|(_, p)| p.to_string()));
    let list: Vec<String> = declared
        .iter()
        .map(|(name, port)| if name.is_empty() { port.to_string() } else { format!("{name}={port}") })
        .collect();
    let object = target.target.service_ref();
    let found = check
        .found(target, object.clone())
        .with("target_port", &name)
        .with("declared", list.join(", "))
        .with("suggestion", suggestion.unwrap_or_default())
        .severity(unless_it_answers(target));
    let field = field(&object, format!("spec.ports[{index}].targetPort"), name);
    vec![found.because(field).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn named(name: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"][0]["targetPort"] = json!(name);
        sample.objects("endpointSlices")[0]["ports"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn a_slip_leads_to_the_name_and_a_number_in_quotes_to_the_number() {
        assert_eq!(named("htttp").said(), [(1102, Severity::Error)]);
        assert_eq!(named("htttp").finding(1102).arg("suggestion"), "http");
        assert_eq!(named("9080").finding(1102).arg("suggestion"), "9080");
        assert_eq!(named("web").finding(1102).arg("suggestion"), "9080");
    }

    #[test]
    fn a_declared_name_is_right() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"][0]["targetPort"] = json!("http");
        assert_eq!(sample.said(), []);
    }
}
