//! Pins the workload to the node that the browser's address leads to, so that no other node's network is needed.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration, Volume};
use serde_json::{Value, json};

use super::{arg, deployment, entry_node, identify, json as as_json, merge_map, patching};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

/// Where the pod template's spec lies in a Deployment.
pub(super) const POD_SPEC: &str = "/spec/template/spec";

/// The label that kubelet sets to the node's host name, and by which one node is chosen.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The taints of a control-plane node, as kubeadm sets them; only these are tolerated by a pin.
const CONTROL_PLANE_TAINTS: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let deployment = deployment(target)?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let node = node_to_pin(facts, target)?;
    let changes = changes(deployment, node)?;
    if changes.is_empty() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", format!("deployment/{name}")));
    }
    let object = identify("Deployment", &deployment.metadata);
    let mut step = patching(ActionName::PinToControlPlane, Tier::T3, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "deployment", name);
    arg(&mut step, "node", node::name(node));
    Ok(step)
}

/// The node that the address leads to, where it can take a pod.
pub(super) fn node_to_pin<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Result<&'a Node, Text> {
    let node = entry_node(facts, target).ok_or_else(|| Text::new("action.pin-to-control-plane.no_node"))?;
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    if cordoned || !node::is_ready(node) {
        return Err(Text::new("action.pin-to-control-plane.node_not_ready").with("node", node::name(node)));
    }
    Ok(node)
}

/// The changes that put the pods on this node; none where they are bound to it already.
pub(super) fn changes(deployment: &Deployment, node: &Node) -> Result<Vec<Change>, Text> {
    let spec = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    let hostname = node.metadata.labels.as_ref().and_then(|l| l.get(HOSTNAME)).map_or(node::name(node), String::as_str);
    let mut changes = merge_map(
        &format!("{POD_SPEC}/nodeSelector"),
        spec.and_then(|s| s.node_selector.as_ref()),
        &[(HOSTNAME, hostname)],
    );
    changes.extend(toleration(spec, node)?);
    Ok(changes)
}

/// The change that makes the pods tolerate the node's control-plane taints.
fn toleration(spec: Option<&PodSpec>, node: &Node) -> Result<Option<Change>, Text> {
    let current = spec.and_then(|s| s.tolerations.as_ref());
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let untolerated: Vec<&Taint> = taints
        .iter()
        .filter(|t| t.effect != "PreferNoSchedule")
        .filter(|t| !current.into_iter().flatten().any(|tolerates| covers(tolerates, t)))
        .collect();
    if let Some(foreign) = untolerated.iter().find(|t| !CONTROL_PLANE_TAINTS.contains(&t.key.as_str())) {
        return Err(Text::new("action.pin-to-control-plane.tainted")
            .with("node", node::name(node))
            .with("taint", &foreign.key));
    }
    if untolerated.is_empty() {
        return Ok(None);
    }
    let mut wanted: Vec<Value> = current.into_iter().flatten().map(as_json).collect();
    wanted.extend(untolerated.iter().map(|t| json!({"key": t.key, "operator": "Exists", "effect": t.effect})));
    Ok(Some(Change {
        path: format!("{POD_SPEC}/tolerations"),
        from: current.map(as_json),
        to: Some(Value::Array(wanted)),
    }))
}

/// Whether a toleration covers a taint (the scheduler's rule).
pub(super) fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let exists = toleration.operator.as_deref() == Some("Exists");
    toleration.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect)
        && match toleration.key.as_deref() {
            None | Some("") => exists,
            Some(key) => {
                key == taint.key
                    && (exists
                        || toleration.value.as_deref().unwrap_or_default()
                            == taint.value.as_deref().unwrap_or_default())
            }
        }
}

/// What a new pod on another node would not have: data in a volume bound to this pod or its node.
pub(super) fn loss(deployment: &Deployment) -> Option<Text> {
    let spec = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let kept: Vec<String> =
        spec.volumes.iter().flatten().filter_map(|v| Some(format!("{} ({})", v.name, keeps(spec, v)?))).collect();
    (!kept.is_empty()).then(|| {
        Text::new("action.pin-to-control-plane.loss")
            .with("deployment", deployment.metadata.name.as_deref().unwrap_or_default())
            .with("volumes", kept.join(", "))
    })
}

/// The kind of a volume that keeps data, as the API spells it.
fn keeps(spec: &PodSpec, volume: &Volume) -> Option<&'static str> {
    if volume.persistent_volume_claim.is_some() {
        return Some("persistentVolumeClaim");
    }
    if volume.ephemeral.is_some() {
        return Some("ephemeral");
    }
    if volume.host_path.is_some() {
        return Some("hostPath");
    }
    let empty_dir = volume.empty_dir.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let data = containers
        .flat_map(|c| c.volume_mounts.iter().flatten())
        .any(|m| m.name == volume.name && m.mount_path.trim_end_matches('/') != "/tmp");
    (data && empty_dir.medium.as_deref() != Some("Memory")).then_some("emptyDir")
}
