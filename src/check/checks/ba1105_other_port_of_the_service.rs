//! BA1105: the expected nodePort belongs to another port of the Service than the page's.

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, ServiceFacts, TargetFacts, pod, service};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1105),
    slug: "other-port-of-the-service",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[Input::PodProxy, Input::NodeSettings],
    remedies: &[ActionName::ExchangeNodePorts],
    explains: &[Code(1101), Code(2305), Code(3018)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck().filter(|_| target.target.port.is_none()) else { return Vec::new() };
    let (Some(wanted), Some((index, held)), Some(spec)) = (target.target.node_port, service.port, service.spec())
    else {
        return Vec::new();
    };
    let Some(arrived) = target.reach.failure().filter(|p| is_answer(&p.outcome)) else { return Vec::new() };
    if service.node_port() != Some(wanted) || serves_pages(held, service) {
        return Vec::new();
    }
    let mut ports = spec.ports.iter().flatten().enumerate();
    let reachable = |p: &ServicePort| service::protocol(p) == "TCP" && p.node_port.is_some_and(|n| n != 0);
    let page = ports.find(|(_, p)| reachable(p) && serves_pages(p, service));
    let Some((page_index, page)) = page else { return Vec::new() };
    let from_pods: Vec<&Probe> = target.reach.at_pods().collect();
    // A pod that answers rightly on this port acquits it.
    if from_pods.is_empty() || from_pods.iter().any(|p| p.outcome.is_right()) {
        return Vec::new();
    }
    let object = target.target.service_ref();
    let name = |port: &ServicePort| port.name.clone().unwrap_or_else(|| port.port.to_string());
    let found = check
        .found(target, object.clone())
        .with("wanted", wanted)
        .with("held_by", name(held))
        .with("page", name(page))
        .with("page_node_port", page.node_port.map(|p| p.to_string()).unwrap_or_default())
        .with("held_index", index)
        .with("page_index", page_index)
        .because(field(&object, format!("spec.ports[{index}].nodePort"), wanted))
        .because(field(&object, format!("spec.ports[{page_index}].nodePort"), serde_json::json!(page.node_port)));
    vec![found.because_of([arrived]).because_of(from_pods)]
}

/// Whether this port is called as ports of pages are: by its name, its appProtocol, or the container port it leads to.
fn serves_pages(port: &ServicePort, service: &ServiceFacts<'_>) -> bool {
    let number = match &port.target_port {
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(_)) => None,
        None => u16::try_from(port.port).ok(),
    };
    let declared = pod::declared_ports(&service.containers);
    let container = declared.iter().find(|(_, p)| Some(*p) == number).map(|(name, _)| *name);
    let target_name = match &port.target_port {
        Some(IntOrString::String(name)) => Some(name.as_str()),
        _ => container,
    };
    let called = |name: &str| {
        let other = ["metrics", "admin", "health", "debug"].iter().any(|word| name.contains(word));
        (name.starts_with("http") || name.starts_with("web")) && !other
    };
    [port.name.as_deref(), port.app_protocol.as_deref(), target_name].into_iter().flatten().any(called)
}

/// Something took or turned away the connection: it arrived at some port.
fn is_answer(outcome: &Outcome) -> bool {
    outcome.connected() || matches!(outcome, Outcome::Refused)
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn swapped() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"] = json!([
            {"name": "http", "port": 9080, "targetPort": 9080, "nodePort": 31234},
            {"name": "metrics", "port": 9090, "targetPort": 9090, "nodePort": 30080}]);
        sample.objects("endpointSlices")[0]["ports"] =
            json!([{"name": "http", "port": 9080}, {"name": "metrics", "port": 9090}]);
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!(["10.244.1.7:9090"]);
        for probe in sample.0["probes"].as_array_mut().into_iter().flatten() {
            if probe["port"] == json!(9080) {
                probe["port"] = json!(9090);
            }
        }
        let other = json!({"outcome": "http", "status": 404, "right": false});
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, other.clone());
        sample.answer(other);
        sample
    }

    #[test]
    fn the_page_is_at_the_other_port() {
        assert_eq!(swapped().said(), [(1105, Severity::Error)]);
        let found = swapped().finding(1105);
        assert_eq!((found.arg("held_by"), found.arg("page")), ("metrics", "http"));
    }

    #[test]
    fn two_ports_for_pages_are_not_told_apart() {
        let mut sample = swapped();
        sample.service()["spec"]["ports"][1]["name"] = json!("http-internal");
        sample.objects("endpointSlices")[0]["ports"][1]["name"] = json!("http-internal");
        assert!(sample.said().iter().all(|(code, _)| *code != 1105));
    }
}
