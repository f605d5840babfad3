//! Admits connections to the page's port beside the NetworkPolicies that deny them: exactly its pods, exactly its port.

use serde_json::json;

use super::{arg, creating, service};
use crate::facts::service::MANAGED_BY;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, ObjectRef, Step, Text, Tier};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unclear = || Text::new("action.admit-outside.unclear").with("service", target.target);
    let service = service(target)?;
    let selector = service.selector().filter(|s| !s.is_empty()).ok_or_else(unclear)?;
    let mut ports: Vec<u16> = service.usable().filter_map(|e| e.port).collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        return Err(unclear());
    }
    let (namespace, name) = (&target.target.namespace, format!("{}-from-outside", target.target.service));
    let object = ObjectRef::namespaced("NetworkPolicy", namespace, &name);
    let exists = facts
        .snapshot
        .objects
        .network_policies
        .iter()
        .any(|p| p.metadata.name.as_deref() == Some(&name) && p.metadata.namespace.as_deref() == Some(namespace));
    if exists {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", object));
    }
    let admitted: Vec<_> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": admitted}],
        },
    });
    let mut step = creating(ActionName::AdmitOutside, Tier::T1, target, finding, object, manifest, None);
    arg(&mut step, "policy", name);
    arg(&mut step, "service", target.target);
    arg(&mut step, "ports", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "));
    Ok(step)
}
