//! BA1308: the Service is a LoadBalancer that was told to allocate no nodePorts.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1308),
    slug: "no-node-ports-allocated",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    // A nodePort that is asked for by number is allocated all the same, but of a LoadBalancer the API server never takes
    // it back: patched, it could not be undone.
    remedies: &[ActionName::SiblingService],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.kind() == "LoadBalancer") else { return Vec::new() };
    let told = service.spec().and_then(|s| s.allocate_load_balancer_node_ports) == Some(false);
    let (true, None, Some((index, _))) = (told, service.node_port(), service.port) else { return Vec::new() };
    let object = target.target.service_ref();
    let wanted = target.target.node_port;
    let mut found = check
        .found(target, object.clone())
        .with("wanted", wanted.map_or_else(|| "30080".to_owned(), |p| p.to_string()))
        .with("index", index)
        .severity(unless_it_answers(target))
        .because(field(&object, "spec.allocateLoadBalancerNodePorts", false));
    if wanted.is_none() {
        found.remedies.clear();
    }
    vec![found.because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn balanced(node_port: serde_json::Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("LoadBalancer");
        sample.service()["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
        sample.service()["spec"]["ports"][0]["nodePort"] = node_port;
        sample
    }

    #[test]
    fn no_port_is_no_way_in_by_a_node() {
        let mut sample = balanced(json!(null));
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1308, Severity::Error)]);
    }

    #[test]
    fn a_port_that_was_asked_for_is_there_all_the_same() {
        assert_eq!(balanced(json!(30080)).said(), []);
    }
}
