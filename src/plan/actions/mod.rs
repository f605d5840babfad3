//! The actions: one file each, from Facts and a Finding to a complete Step.
//!
//! Building a Step decides everything: what is written, what was there before, the command a person would type and the
//! one that takes it back. An action that cannot be planned says why, as a Text.

mod accept_on_node;
mod admit_outside;
mod bind_kube_proxy;
mod clamp_segments;
mod configure_kube_proxy;
mod create_service;
mod exchange_node_ports;
mod host_port;
mod install_kube_proxy;
mod ip_family;
mod mend_node;
mod mend_pod_network;
mod mend_workload;
mod mirror_endpoints;
pub(super) mod open_forward;
mod open_security_group;
mod pin_to_control_plane;
mod protocol;
mod raise_conntrack;
mod restart_kube_proxy;
mod restore_route;
mod rollout_undo;
mod scale;
mod schedule_kube_proxy;
mod selector;
mod service_node_port;
mod service_proxy_name;
mod session_affinity;
mod set_kernel;
mod sibling_service;
mod source_ranges;
mod target_port;
mod traffic_policy;
mod uncordon;
mod unpin;
mod wake_kube_proxy;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, ServicePort};
use serde::Serialize;
use serde_json::Value;

use super::patch;
use crate::facts::service::sibling_name;
use crate::facts::{Facts, ServiceFacts, TargetFacts, node};
use crate::model::node_setting::typed;
use crate::model::{Act, ActionName, Change, Finding, NodeSetting, ObjectRef, Restart, Step, Text, Tier, Verify};

/// The Step of one action for one finding.
///
/// # Errors
/// Why it cannot be planned here.
pub fn step(name: ActionName, facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let build = match name {
        ActionName::OpenForward => open_forward::step,
        ActionName::ServiceNodePort => service_node_port::step,
        ActionName::TargetPort => target_port::step,
        ActionName::Selector => selector::step,
        ActionName::TrafficPolicy => traffic_policy::step,
        ActionName::Scale => scale::step,
        ActionName::PinToControlPlane => pin_to_control_plane::step,
        ActionName::HostPort => host_port::step,
        ActionName::WakeKubeProxy => wake_kube_proxy::step,
        ActionName::ScheduleKubeProxy => schedule_kube_proxy::step,
        ActionName::RestartKubeProxy => restart_kube_proxy::step,
        ActionName::RestoreRoute => restore_route::step,
        ActionName::OpenSecurityGroup => open_security_group::step,
        ActionName::MendWorkload => mend_workload::step,
        ActionName::CreateService => create_service::step,
        ActionName::InstallKubeProxy => install_kube_proxy::step,
        ActionName::MendNode => mend_node::step,
        ActionName::SiblingService => sibling_service::step,
        ActionName::SessionAffinity => session_affinity::step,
        ActionName::ServiceProxyName => service_proxy_name::step,
        ActionName::Protocol => protocol::step,
        ActionName::ExchangeNodePorts => exchange_node_ports::step,
        ActionName::MirrorEndpoints => mirror_endpoints::step,
        ActionName::IpFamily => ip_family::step,
        ActionName::SourceRanges => source_ranges::step,
        ActionName::AdmitOutside => admit_outside::step,
        ActionName::RolloutUndo => rollout_undo::step,
        ActionName::Unpin => unpin::step,
        ActionName::Uncordon => uncordon::step,
        ActionName::ConfigureKubeProxy => configure_kube_proxy::step,
        ActionName::BindKubeProxy => bind_kube_proxy::step,
        ActionName::SetKernel => set_kernel::step,
        ActionName::AcceptOnNode => accept_on_node::step,
        ActionName::RaiseConntrack => raise_conntrack::step,
        ActionName::MendPodNetwork => mend_pod_network::step,
        ActionName::ClampSegments => clamp_segments::step,
    };
    build(facts, target, finding)
}

/// The Steps that complete one: a new configuration of kube-proxy takes effect node by node, each verified.
pub fn followers(step: &Step, facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Vec<Step> {
    match &step.act {
        Act::Configure { restart, .. } => restart_kube_proxy::others(facts, target, finding, &restart.pod),
        _ => Vec::new(),
    }
}

/// What moving or restarting the target's pods would lose; none where nothing is kept in them.
pub fn loss(target: &TargetFacts<'_>) -> Option<Text> {
    pin_to_control_plane::loss(deployment(target).ok()?)
}

/// The action's name as it stands in locale keys, files and JSON.
pub fn kebab(name: ActionName) -> String {
    match serde_json::to_value(name) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// The start of every Step: nothing but what is common to all.
fn blank(name: ActionName, tier: Tier, target: &TargetFacts<'_>, finding: &Finding, act: Act, verify: Verify) -> Step {
    Step {
        name,
        tier,
        target: target.target.to_string(),
        cause: finding.code,
        act,
        verify,
        args: BTreeMap::new(),
        command: String::new(),
        undo: String::new(),
    }
}

/// A Step that changes fields of one object, with its kubectl commands.
fn patching(
    name: ActionName,
    tier: Tier,
    target: &TargetFacts<'_>,
    finding: &Finding,
    (object, uid): (ObjectRef, String),
    changes: Vec<Change>,
    verify: Verify,
) -> Step {
    let (command, undo) = (patch_command(&object, &changes), patch_command(&object, &patch::inverse(&changes)));
    let mut step = blank(name, tier, target, finding, Act::Patch { object, uid, changes }, verify);
    step.command = command;
    step.undo = undo;
    step
}

/// A Step that creates an object, with its kubectl commands.
fn creating(
    name: ActionName,
    tier: Tier,
    target: &TargetFacts<'_>,
    finding: &Finding,
    object: ObjectRef,
    manifest: Value,
    restart: Option<Restart>,
) -> Step {
    let command = format!("echo '{}' | kubectl create -f -", quoted(&manifest));
    let undo = format!("kubectl{} delete {} {}", scope(&object), object.kind.to_lowercase(), object.name);
    let mut step = blank(name, tier, target, finding, Act::Create { object, manifest, restart }, Verify::Cleared);
    step.command = command;
    step.undo = undo;
    step
}

/// A Step that is only told.
fn told(
    name: ActionName,
    tier: Tier,
    target: &TargetFacts<'_>,
    finding: &Finding,
    command: String,
    undo: String,
) -> Step {
    let mut step = blank(name, tier, target, finding, Act::Tell, Verify::Nothing);
    step.command = command;
    step.undo = undo;
    step
}

/// A Step that changes settings of a node: taken where this command runs there as root, else told.
fn on_node(
    name: ActionName,
    facts: &Facts<'_>,
    target: &TargetFacts<'_>,
    finding: &Finding,
    node: &str,
    settings: Vec<NodeSetting>,
) -> Step {
    let line = |argv: Vec<String>| format!("sudo {}", typed(&argv));
    let command: Vec<String> = settings.iter().map(|s| line(s.command())).collect();
    let undo = settings.iter().rev().map(|s| match s {
        NodeSetting::NftAccept { family, table, chain, .. } => {
            let listed = ["nft", "-a", "list", "chain", family, table, chain].map(str::to_owned);
            format!("{} && {}", line(listed.to_vec()), line(s.undo(None)))
        }
        other => line(other.undo(None)),
    });
    let undo: Vec<String> = undo.collect();
    let stand = &facts.snapshot.stand;
    let here = stand.root && stand.node.as_deref() == Some(node);
    let (act, verify) = match here {
        true => (Act::Node { node: node.to_owned(), settings }, Verify::Cleared),
        false => (Act::Tell, Verify::Nothing),
    };
    let mut step = blank(name, Tier::T5, target, finding, act, verify);
    step.command = command.join(" && ");
    step.undo = undo.join(" && ");
    arg(&mut step, "node", node);
    step
}

/// `kubectl patch` with exactly the operations the Step makes.
fn patch_command(object: &ObjectRef, changes: &[Change]) -> String {
    let operations = quoted(&Value::Array(patch::operations(changes)));
    let kind = object.kind.to_lowercase();
    format!("kubectl{} patch {kind} {} --type=json -p '{operations}'", scope(object), object.name)
}

/// JSON within single quotes of a shell.
fn quoted(value: &Value) -> String {
    value.to_string().replace('\'', r"'\''")
}

/// kubectl's flag for the object's namespace, where it has one.
fn scope(object: &ObjectRef) -> String {
    object.namespace.as_ref().map(|n| format!(" -n {n}")).unwrap_or_default()
}

/// Takes one key out of a map: the whole map, where nothing else is in it, as the API server keeps no empty ones.
fn without_key(path: &str, current: &BTreeMap<String, String>, key: &str) -> Option<Change> {
    let value = current.get(key)?;
    Some(match current.len() {
        1 => Change { path: path.to_owned(), from: Some(json(current)), to: None },
        _ => {
            Change { path: format!("{path}/{}", patch::escape(key)), from: Some(Value::from(value.as_str())), to: None }
        }
    })
}

fn arg(step: &mut Step, name: &str, value: impl ToString) {
    step.args.insert(name.to_owned(), value.to_string());
}

/// The Service, or why there is nothing to plan.
fn service<'f, 'a>(target: &'f TargetFacts<'a>) -> Result<&'f ServiceFacts<'a>, Text> {
    target.service.as_ref().ok_or_else(|| Text::new("plan.cannot.no_service").with("service", target.target))
}

/// The Service's port in question with its index.
fn port<'a>(target: &TargetFacts<'a>) -> Result<(usize, &'a ServicePort), Text> {
    service(target)?.port.ok_or_else(|| Text::new("plan.cannot.no_port").with("service", target.target))
}

/// The Deployment behind the Service.
fn deployment<'a>(target: &TargetFacts<'a>) -> Result<&'a Deployment, Text> {
    service(target)?.deployment.ok_or_else(|| Text::new("plan.cannot.no_deployment").with("service", target.target))
}

/// Names an object and its uid, for a patch.
fn identify(kind: &str, meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (ObjectRef, String) {
    (
        ObjectRef {
            kind: kind.to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
        },
        meta.uid.clone().unwrap_or_default(),
    )
}

/// A Kubernetes value as JSON; absent fields stay absent.
pub(super) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Writes `entries` into the map at `path`: the whole map where it is absent, else key by key; what already holds is
/// left out.
fn merge_map(path: &str, current: Option<&BTreeMap<String, String>>, entries: &[(&str, &str)]) -> Vec<Change> {
    match current {
        None => vec![Change {
            path: path.to_owned(),
            from: None,
            to: Some(Value::Object(entries.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect())),
        }],
        Some(current) => entries
            .iter()
            .filter(|(k, v)| current.get(*k).map(String::as_str) != Some(*v))
            .map(|(k, v)| Change {
                path: format!("{path}/{}", patch::escape(k)),
                from: current.get(*k).map(|v| Value::from(v.as_str())),
                to: Some(Value::from(*v)),
            })
            .collect(),
    }
}

/// The node that the browser's address leads to; where that is unknown, the only control-plane node.
fn entry_node<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Option<&'a Node> {
    match target.reach.node {
        Some(name) => facts.node(name),
        None => {
            let mut planes = facts.snapshot.objects.nodes.iter().filter(|n| node::is_control_plane(n));
            planes.next().filter(|_| planes.next().is_none())
        }
    }
}

/// The port a browser dials: the one expected, else the Service's nodePort.
fn browser_port(target: &TargetFacts<'_>) -> Option<u16> {
    target.target.node_port.or(target.reach.port)
}

/// Another Service that holds this nodePort already.
fn node_port_owner(facts: &Facts<'_>, target: &TargetFacts<'_>, wanted: u16) -> Option<String> {
    let wanted = i32::from(wanted);
    facts.snapshot.objects.services.iter().find_map(|s| {
        let (namespace, name) = (s.metadata.namespace.as_deref()?, s.metadata.name.as_deref()?);
        let spec = s.spec.as_ref()?;
        let named = name == target.target.service || name == sibling_name(&target.target.service);
        let own = namespace == target.target.namespace && named;
        let holds = spec.health_check_node_port == Some(wanted)
            || spec.ports.iter().flatten().any(|p| p.node_port == Some(wanted));
        (holds && !own).then(|| format!("{namespace}/{name}"))
    })
}

/// Managers that write an object from a source elsewhere, by a part of their field manager's name.
const OWNERS: [(&str, &str); 4] =
    [("argocd", "Argo CD"), ("kustomize-controller", "Flux"), ("helm-controller", "Flux"), ("helm", "Helm")];

/// Who will write this object again from its own source, judged by labels, annotations and field managers.
pub(super) fn owner(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<&'static str> {
    let has = |key: &str| {
        meta.labels.as_ref().is_some_and(|l| l.contains_key(key))
            || meta.annotations.as_ref().is_some_and(|a| a.contains_key(key))
    };
    if has("argocd.argoproj.io/instance") || has("argocd.argoproj.io/tracking-id") {
        return Some("Argo CD");
    }
    if has("kustomize.toolkit.fluxcd.io/name") || has("helm.toolkit.fluxcd.io/name") {
        return Some("Flux");
    }
    if has("meta.helm.sh/release-name") {
        return Some("Helm");
    }
    let managers: Vec<&str> = meta.managed_fields.iter().flatten().filter_map(|f| f.manager.as_deref()).collect();
    OWNERS.iter().find(|(part, _)| managers.iter().any(|m| m.contains(part))).map(|(_, owner)| *owner)
}
