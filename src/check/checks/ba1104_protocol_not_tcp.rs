//! BA1104: the Service port is UDP or SCTP, and browsers speak TCP.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1104),
    slug: "protocol-not-tcp",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[ActionName::Protocol],
    // Rules for another protocol are no rules for the page.
    explains: &[Code(3018), Code(3020), Code(6001)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed() else { return Vec::new() };
    let (protocol, Some((index, _))) = (service.protocol(), service.port) else { return Vec::new() };
    if protocol == "TCP" {
        return Vec::new();
    }
    let severity = match target.target.may_become_node_port() {
        true => unless_it_answers(target),
        // A name server found among others is no page.
        false => Severity::Info,
    };
    let object = target.target.service_ref();
    let found = check.found(target, object.clone()).with("protocol", protocol).with("index", index).severity(severity);
    let path = format!("spec.ports[{index}].protocol");
    vec![found.because(field(&object, path, protocol)).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn udp() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"][0]["protocol"] = json!("UDP");
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn a_rule_for_tcp_that_is_missing_is_its_consequence() {
        assert_eq!(udp().said(), [(1104, Severity::Error)]);
    }

    #[test]
    fn the_tcp_port_of_the_same_number_is_meant() {
        let mut sample = Sample::healthy();
        let udp = json!({"name": "http-udp", "port": 9080, "protocol": "UDP", "nodePort": 30080});
        if let Some(ports) = sample.service()["spec"]["ports"].as_array_mut() {
            ports.insert(0, udp);
        }
        sample.answer(json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 1104));
    }

    #[test]
    fn a_name_server_that_was_only_discovered_gets_a_note() {
        let mut sample = udp();
        sample.service()["metadata"]["name"] = json!("dns");
        sample.0["targets"][0]["service"] = json!("dns");
        assert!(sample.said().contains(&(1104, Severity::Info)));
    }
}
