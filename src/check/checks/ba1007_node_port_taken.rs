//! BA1007: another Service holds the nodePort that browsers dial.

use k8s_openapi::api::core::v1::Service;

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1007),
    slug: "node-port-taken",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    // Only a person can say which of the two Services should give way.
    remedies: &[],
    explains: &[Code(1005)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(wanted)) = (&target.service, target.target.node_port) else { return Vec::new() };
    if service.node_port() == Some(wanted) || !target.target.may_become_node_port() {
        return Vec::new();
    }
    let mut owners: Vec<(ObjectRef, String)> =
        facts.snapshot.objects.services.iter().filter_map(|s| Some((reference(s)?, holds(s, wanted)?))).collect();
    owners.sort();
    let Some((owner, path)) = owners.into_iter().find(|(o, _)| *o != target.target.service_ref()) else {
        return Vec::new();
    };
    // Of a Service that opens no port at all, BA1002 speaks first: this one only stands in the way of its repair.
    let silent = service.node_port().is_some() && target.reach.answers_on(facts.snapshot, wanted) == Some(false);
    let name = format!("{}/{}", owner.namespace(), owner.name);
    let found = check.found(target, owner.clone()).with("wanted", wanted).with("owner", name);
    let severity = if silent { Severity::Error } else { Severity::Warning };
    vec![found.severity(severity).because(field(&owner, path, wanted))]
}

fn reference(service: &Service) -> Option<ObjectRef> {
    let meta = &service.metadata;
    Some(ObjectRef::namespaced("Service", meta.namespace.as_deref()?, meta.name.as_deref()?))
}

/// Where this Service names the port as its own. A nodePort belongs to one protocol.
fn holds(service: &Service, port: u16) -> Option<String> {
    let spec = service.spec.as_ref()?;
    let wanted = Some(i32::from(port));
    if spec.health_check_node_port == wanted {
        return Some("spec.healthCheckNodePort".to_owned());
    }
    let tcp = |protocol: Option<&str>| protocol.is_none_or(|p| p == "TCP");
    let mut ports = spec.ports.iter().flatten().enumerate();
    ports
        .find(|(_, p)| p.node_port == wanted && tcp(p.protocol.as_deref()))
        .map(|(index, _)| format!("spec.ports[{index}].nodePort"))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn taken(protocol: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(31234);
        sample.0["host"]["rules"]["nodePorts"][0]["port"] = json!(31234);
        let other = json!({"metadata": {"name": "goldpinger", "namespace": "monitoring"}, "spec": {"type": "NodePort",
            "ports": [{"port": 80, "nodePort": 30080, "protocol": protocol}]}});
        sample.add("services", other);
        sample.answer(json!({"outcome": "http", "status": 404, "right": false}));
        sample
    }

    #[test]
    fn the_owner_is_named_instead_of_the_other_port() {
        let sample = taken("TCP");
        assert_eq!(sample.said(), [(1007, Severity::Error)]);
        assert_eq!(sample.finding(1007).arg("owner"), "monitoring/goldpinger");
    }

    #[test]
    fn a_port_of_another_protocol_is_free() {
        assert_eq!(taken("UDP").said(), [(1005, Severity::Error)]);
    }
}
