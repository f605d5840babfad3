//! Creates the Service that is missing, where one Deployment is obviously meant and its port is known; else told.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::selector::by_application;
use super::sibling_service::manifest;
use super::{arg, creating, node_port_owner, told};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::container::of_template;
use crate::model::{ActionName, Finding, Step, Text, Tier};

/// The port Bookinfo's applications listen on, where no pod says another.
const BOOKINFO_PORT: u16 = 9080;

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let mut step = obvious(facts, target, finding).unwrap_or_else(|| by_hand(facts, target, finding));
    arg(&mut step, "service", target.target);
    Ok(step)
}

/// The Step, where nothing about the Service is left to guess.
fn obvious(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Option<Step> {
    let (deployment, node_port) = (meant(facts, target)?, target.target.node_port?);
    let (port, selector) = (only_port(deployment)?, by_application(deployment)?);
    let ports = json!([{"name": "http", "port": port, "targetPort": port, "protocol": "TCP", "nodePort": node_port}]);
    let (object, manifest) = manifest(target, &target.target.service, &selector, ports);
    Some(creating(ActionName::CreateService, Tier::T1, target, finding, object, manifest, None))
}

/// The port that the Service will have, where it is obvious.
pub(super) fn port(facts: &Facts<'_>, target: &TargetFacts<'_>) -> Option<u16> {
    only_port(meant(facts, target)?)
}

/// The one Deployment that the missing Service is meant for, where it may open its nodePort.
fn meant<'a>(facts: &Facts<'a>, target: &TargetFacts<'_>) -> Option<&'a Deployment> {
    let node_port = target.target.node_port.filter(|_| target.target.may_become_node_port())?;
    if target.service.is_some() || node_port_owner(facts, target, node_port).is_some() {
        return None;
    }
    let mut meant = facts.snapshot.objects.deployments.iter().filter(|d| is_meant(d, target));
    meant.next().filter(|_| meant.next().is_none())
}

/// Named as the Service, or as a version of it, and labelled so.
fn is_meant(deployment: &Deployment, target: &TargetFacts<'_>) -> bool {
    let wanted = &target.target.service;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let named = name == wanted || name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with("-v"));
    let labelled = by_application(deployment).is_some_and(|labels| labels.values().any(|v| v == wanted));
    deployment.metadata.namespace.as_ref() == Some(&target.target.namespace) && named && labelled
}

/// The port that the pods declare for pages: the only one, or the only one called `http…`.
fn only_port(deployment: &Deployment) -> Option<u16> {
    let spec = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let containers = of_template(spec);
    let declared = pod::declared_ports(&containers);
    let pages: Vec<u16> = declared.iter().filter(|(name, _)| name.starts_with("http")).map(|(_, port)| *port).collect();
    match (declared.as_slice(), pages.as_slice()) {
        ([(_, only)], _) | (_, [only]) => Some(*only),
        _ => None,
    }
}

fn by_hand(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Step {
    let (namespace, name) = (&target.target.namespace, &target.target.service);
    let labelled = |d: &&Deployment| {
        let app = d.spec.as_ref().and_then(|s| s.template.metadata.as_ref()?.labels.as_ref()?.get("app"));
        // `kubectl create service` selects by the label `app=NAME`.
        d.metadata.namespace.as_ref() == Some(namespace) && app == Some(name)
    };
    let port = facts.snapshot.objects.deployments.iter().find(labelled).and_then(|d| {
        let containers = of_template(d.spec.as_ref()?.template.spec.as_ref()?);
        pod::declared_ports(&containers).first().map(|(_, port)| *port)
    });
    let port = port.unwrap_or(BOOKINFO_PORT);
    let node_port = target.target.node_port.map(|p| format!(" --node-port={p}")).unwrap_or_default();
    let command = format!("kubectl -n {namespace} create service nodeport {name} --tcp={port}:{port}{node_port}");
    let undo = format!("kubectl -n {namespace} delete service {name}");
    told(ActionName::CreateService, Tier::T1, target, finding, command, undo)
}
