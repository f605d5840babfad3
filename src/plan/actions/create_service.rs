//! Told: the Service that is missing.

use k8s_openapi::api::apps::v1::Deployment;

use super::{arg, told};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, Step, Text, Tier};

/// The port Bookinfo's applications listen on, where no pod says another.
const BOOKINFO_PORT: i32 = 9080;

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let (namespace, name) = (&target.target.namespace, &target.target.service);
    let port = facts
        .snapshot
        .objects
        .deployments
        .iter()
        .find(|d| belongs(d, namespace, name))
        .and_then(|d| d.spec.as_ref()?.template.spec.as_ref())
        .and_then(|s| s.containers.iter().flat_map(|c| c.ports.iter().flatten()).next())
        .map_or(BOOKINFO_PORT, |p| p.container_port);
    let node_port = target.target.node_port.map(|p| format!(" --node-port={p}")).unwrap_or_default();
    let command = format!("kubectl -n {namespace} create service nodeport {name} --tcp={port}:{port}{node_port}");
    let undo = format!("kubectl -n {namespace} delete service {name}");
    let mut step = told(ActionName::CreateService, Tier::T1, target, finding, command, undo);
    arg(&mut step, "service", target.target);
    Ok(step)
}

/// `kubectl create service` selects by the label `app=NAME`.
fn belongs(deployment: &Deployment, namespace: &str, name: &str) -> bool {
    deployment.metadata.namespace.as_deref() == Some(namespace)
        && deployment
            .spec
            .as_ref()
            .and_then(|s| s.template.metadata.as_ref()?.labels.as_ref()?.get("app"))
            .is_some_and(|app| app == name)
}
