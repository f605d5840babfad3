//! What a Pod object says about itself.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated};

use crate::model::container::{Container, ContainerStatus};
use crate::model::pod::Pod;

/// Reasons of a waiting container that mean: the image cannot be had (kubelet's `pkg/kubelet/images/types.go`).
const IMAGE_REASONS: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// A pod that started less than this many seconds ago, and of which nothing bad is known, is still starting.
const STARTING: i64 = 60;

/// An application without a readiness probe may need this many seconds after its start until it listens.
const WARMING: i64 = 30;

/// The scheduler may need this many seconds on a cluster whose nodes have only just become ready.
const SCHEDULING: i64 = 15;

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble<'a> {
    pub kind: TroubleKind,
    pub container: &'a str,
    pub image: &'a str,
    /// The kubelet's word for it, such as `ImagePullBackOff`.
    pub reason: &'a str,
    pub message: &'a str,
    /// Exit code of the last run, where there was one.
    pub exit_code: Option<i32>,
    pub restarts: i32,
}

/// The families that a person treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    Image,
    /// The kubelet cannot make the container from its spec: a ConfigMap, Secret or user is missing.
    Config,
    Crash,
}

/// The Pod's name, or "".
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The node it is bound to.
pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
}

/// Its phase, or "".
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Neither being deleted nor finished.
pub fn is_live(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase(pod), "Succeeded" | "Failed")
}

/// Status, reason and message of one condition.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let condition = pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)?;
    Some((
        condition.status.as_str(),
        condition.reason.as_deref().unwrap_or_default(),
        condition.message.as_deref().unwrap_or_default(),
    ))
}

/// Whether the Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// Seconds since it was created; none where the object does not say.
pub fn age(pod: &Pod, now: Timestamp) -> Option<i64> {
    pod.metadata.creation_timestamp.as_ref().map(|t| now.as_second() - t.0.as_second())
}

/// The containers, without init containers.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default()
}

/// Declared TCP container ports: name (or "") and number.
pub fn declared_ports(containers: &[Container]) -> Vec<(&str, u16)> {
    containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten())
        .filter(|p| p.protocol.as_deref().is_none_or(|p| p == "TCP"))
        .filter_map(|p| Some((p.name.as_deref().unwrap_or_default(), u16::try_from(p.container_port).ok()?)))
        .collect()
}

/// The states of init containers, then of containers.
pub fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    let main = status.and_then(|s| s.container_statuses.as_ref());
    init.into_iter().flatten().chain(main.into_iter().flatten())
}

/// Whether every container runs now.
pub fn is_running(pod: &Pod) -> bool {
    let main = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    main.is_some_and(|m| !m.is_empty() && m.iter().all(|c| c.state.as_ref().is_some_and(|s| s.running.is_some())))
}

/// When the last container to start did start, in seconds before `now`.
pub fn running_for(pod: &Pod, now: Timestamp) -> Option<i64> {
    let main = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref())?;
    main.iter()
        .map(|c| c.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|t| now.as_second() - t.0.as_second()))
        .min()?
}

/// Seconds since the Ready condition became what it is.
pub fn ready_for(pod: &Pod, now: Timestamp) -> Option<i64> {
    let condition = pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")?;
    condition.last_transition_time.as_ref().map(|t| now.as_second() - t.0.as_second())
}

/// What keeps a container from running, where the kubelet names it.
pub fn trouble(pod: &Pod) -> Option<Trouble<'_>> {
    statuses(pod).find_map(|status| {
        let state = status.state.as_ref()?;
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        let found = |kind, reason, message, run: Option<&ContainerStateTerminated>| {
            Some(Trouble {
                kind,
                container: status.name.as_str(),
                image: status.image.as_str(),
                reason,
                message,
                exit_code: run.map(|t| t.exit_code),
                restarts: status.restart_count,
            })
        };
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let message = waiting.message.as_deref().unwrap_or_default();
            if IMAGE_REASONS.contains(&reason) {
                return found(TroubleKind::Image, reason, message, None);
            }
            if reason == "CreateContainerConfigError" {
                return found(TroubleKind::Config, reason, message, None);
            }
            if matches!(reason, "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError") {
                return found(TroubleKind::Crash, reason, message, last);
            }
        }
        if let Some(ended) = state.terminated.as_ref().filter(|t| t.exit_code != 0) {
            let reason = ended.reason.as_deref().unwrap_or("Error");
            return found(TroubleKind::Crash, reason, ended.message.as_deref().unwrap_or_default(), Some(ended));
        }
        // Running between two crashes.
        if let Some(ended) = last.filter(|t| t.exit_code != 0 && !status.ready && status.restart_count >= 3) {
            let reason = ended.reason.as_deref().unwrap_or("Error");
            return found(TroubleKind::Crash, reason, ended.message.as_deref().unwrap_or_default(), Some(ended));
        }
        None
    })
}

/// The scheduler's word on a pod that it could not place.
pub fn unschedulable(pod: &Pod) -> Option<&str> {
    let (status, _, message) = condition(pod, "PodScheduled")?;
    (status == "False").then_some(message)
}

/// Whether Istio's proxy stands before the application.
pub fn has_istio(pod: &Pod) -> bool {
    has_sidecar(pod, "istio-proxy")
}

/// Whether the proxy of any known mesh stands before the application.
pub fn is_meshed(pod: &Pod) -> bool {
    MESHES.iter().any(|name| has_sidecar(pod, name))
}

/// The proxies of Istio and Linkerd.
pub const MESHES: [&str; 2] = ["istio-proxy", "linkerd-proxy"];

/// Whether a mesh's proxy of that name stands before the application, as a container of its own or as a native sidecar.
pub fn has_sidecar(pod: &Pod, name: &str) -> bool {
    let init = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    containers(pod).iter().chain(init).any(|c| c.name == name)
}

/// The ports of its node that a pod's containers take.
pub fn host_ports(containers: &[Container]) -> Vec<u16> {
    let ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports.filter_map(|p| u16::try_from(p.host_port?).ok()).filter(|p| *p != 0).collect()
}

/// The termination message of a container's last run.
pub fn last_words<'p>(pod: &'p Pod, container: &str) -> Option<&'p str> {
    let status = statuses(pod).find(|s| s.name == container)?;
    let ended = |s: &'p ContainerState| s.terminated.as_ref()?.message.as_deref();
    status.state.as_ref().and_then(ended).or_else(|| status.last_state.as_deref().and_then(ended))
}

/// The container that was killed for want of memory, where that is why it does not run now.
pub fn out_of_memory(pod: &Pod) -> Option<&ContainerStatus> {
    statuses(pod).find(|status| {
        let terminated =
            |s: &ContainerState| s.terminated.as_ref().is_some_and(|t| t.reason.as_deref() == Some("OOMKilled"));
        let ended = status.state.as_ref().is_some_and(terminated);
        // Once it runs again it is given the chance to come up, unless that has gone wrong several times.
        let waits = status.state.as_ref().is_some_and(|s| s.waiting.is_some()) || status.restart_count >= 3;
        ended || (!status.ready && waits && status.last_state.as_deref().is_some_and(terminated))
    })
}

/// Counted as ready since it runs, because no probe asks the application, and so young that it may not listen yet.
/// With a port that its containers declare, or where they declare none: another one will never be listened on.
pub fn is_warming(pod: &Pod, port: Option<u16>, now: Timestamp) -> bool {
    let young = running_for(pod, now).is_some_and(|age| age < WARMING);
    let declared = declared_ports(containers(pod));
    let expected = declared.is_empty() || declared.iter().any(|(_, p)| Some(*p) == port);
    young && expected && containers(pod).iter().all(|c| c.readiness_probe.is_none())
}

/// Not ready yet, young, and nothing bad is known of it.
pub fn is_starting(pod: &Pod, now: Timestamp) -> bool {
    let Some(age) = age(pod, now) else { return false };
    let limit = if unschedulable(pod).is_some() { SCHEDULING } else { STARTING };
    is_live(pod) && !is_ready(pod) && age < limit && trouble(pod).is_none()
}
