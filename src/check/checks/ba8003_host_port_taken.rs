//! BA8003: a pod of the page waits for a port of a node that another pod has.

use crate::check::{Check, Hop, field, host_port, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(8003),
    slug: "host-port-taken",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    // Which of the two shall have it is for a person to say.
    remedies: &[],
    explains: &[Code(2002)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(waiting) = host_port::waiting(facts, target, false) else { return Vec::new() };
    let served = target.service.as_ref().is_some_and(|s| s.usable().next().is_some());
    let name = pod::name(waiting.pod);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let mut found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("host_port", waiting.port)
        .with("holder", waiting.holder.map(pod::name).unwrap_or_default())
        .severity(if served || target.settling { Severity::Warning } else { unless_it_answers(target) })
        .because(Evidence::Condition {
            object,
            condition: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            message: waiting.why.to_owned(),
        });
    if let Some(holder) = waiting.holder {
        let object = ObjectRef::namespaced("Pod", &target.target.namespace, pod::name(holder));
        found = found.because(field(&object, "spec.containers[].ports[].hostPort", waiting.port));
    }
    vec![found]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn a_stranger_with_the_port_is_named() {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.objects("endpointSlices")[0]["endpoints"] = json!([]);
        let port = json!([{"name": "http", "containerPort": 9080, "hostPort": 80}]);
        sample.pod()["spec"]["containers"][0]["ports"] = port.clone();
        sample.pod()["spec"]["nodeName"] = json!(null);
        sample.pod()["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."}]});
        sample.objects("pods")[1]["spec"]["containers"][0]["ports"] = port;
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(8003, Severity::Error)]);
        assert_eq!(sample.finding(8003).arg("holder"), "details-v1-5f4d-fghij");
        sample.pod()["status"]["conditions"][0]["message"] = json!("0/2 nodes are available: 2 Insufficient cpu.");
        assert_eq!(sample.said(), [(2002, Severity::Error)]);
    }
}
