//! BA1006: the API server allows no nodePort of that number.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node_ports};
use crate::model::{Code, Confidence, Evidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1006),
    slug: "node-port-out-of-range",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::Nodes, Input::ApiServer],
    either: &[],
    // Another number, or another range: only a person can say.
    remedies: &[],
    explains: &[Code(1005)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(wanted)) = (&target.service, target.target.node_port) else { return Vec::new() };
    // A port that is held was allowed once, and is kept.
    if service.node_port() == Some(wanted) || !target.target.may_become_node_port() || service.kind() == "ExternalName"
    {
        return Vec::new();
    }
    let Some(allowed) = node_ports::allowed(facts.snapshot).filter(|a| !a.range.contains(&wanted)) else {
        return Vec::new();
    };
    // Of a Service that opens no port at all, BA1002 speaks first: this one only stands in the way of its repair.
    let silent = service.node_port().is_some() && target.reach.answers_on(facts.snapshot, wanted) == Some(false);
    let range = format!("{}-{}", allowed.range.start(), allowed.range.end());
    let object = target.target.service_ref();
    let found = check
        .found(target, object.clone())
        .with("wanted", wanted)
        .with("range", &range)
        .with("actual", service.node_port().map(|p| p.to_string()).unwrap_or_default())
        .severity(if silent { Severity::Error } else { Severity::Warning })
        .confidence(if allowed.said_by.is_some() { Confidence::Certain } else { Confidence::Likely });
    let said = match allowed.said_by {
        Some((object, path)) => field(&object, path, range),
        None => Evidence::Field { object, path: "spec.ports".to_owned(), value: serde_json::json!(wanted) },
    };
    vec![found.because(said).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn elsewhere(command: serde_json::Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["objects"]["apiServerPods"] = json!([{"metadata": {"name": "kube-apiserver-cp1", "namespace":
            "kube-system"}, "spec": {"containers": [{"name": "kube-apiserver", "command": command}]}}]);
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(21234);
        sample.0["host"]["rules"]["nodePorts"][0]["port"] = json!(21234);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_range_stands_in_the_way_of_the_wanted_port() {
        let sample = elsewhere(json!(["kube-apiserver", "--service-node-port-range=20000-22767"]));
        assert_eq!(sample.said(), [(1006, Severity::Error)]);
        assert_eq!(sample.finding(1006).arg("range"), "20000-22767");
    }

    #[test]
    fn a_port_within_the_range_can_be_set() {
        let mut sample = elsewhere(json!(["kube-apiserver"]));
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(31234);
        assert_eq!(sample.said(), [(1005, Severity::Error)]);
    }

    #[test]
    fn where_nobody_says_the_default_is_likely() {
        let mut sample = Sample::healthy();
        sample.0["targets"][0]["nodePort"] = json!(8080);
        assert_eq!(sample.finding(1006).confidence, Confidence::Likely);
    }
}
