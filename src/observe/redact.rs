//! What of a Snapshot may leave the machine: no secret, and of what no check reads as little as possible.
//!
//! Free text (logs, messages) is scrubbed as soon as it is read, so that no finding shows a secret either. For a file
//! fields that commonly hold secrets are emptied as well; their names stay, so that a reader sees that something was
//! there.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{self, ContainerState, Probe as ContainerProbe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::scrub::scrub;
use crate::facts::{Index, cilium, log};
use crate::model::container::Container;
use crate::model::pod::{Pod, PodSpec, PodStatus};
use crate::model::{Gap, GapReason, Outcome, Probe, Snapshot};

/// What stands in the place of what was removed.
pub const REMOVED: &str = "(removed)";

/// Annotations whose values are read, by the beginnings of their names.
const READ_ANNOTATIONS: [&str; 14] = [
    "argocd.argoproj.io/",
    "config.linkerd.io/",
    "deployment.kubernetes.io/",
    "endpoints.kubernetes.io/",
    "flannel.alpha.coreos.com/",
    "helm.toolkit.fluxcd.io/",
    "k3s.io/",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "projectcalico.org/",
    "rke.cattle.io/external-ip",
    "rke2.io/",
    "service.kubernetes.io/",
    "sidecar.istio.io/",
];

/// Annotations that hold the arguments of a process.
const ARGUMENTS: [&str; 2] = ["k3s.io/node-args", "rke2.io/node-args"];

/// Flags whose values are read.
const READ_FLAGS: [&str; 6] = [
    "--service-node-port-range",
    "--run-service-proxy",
    "--hostname-override",
    "--proxy-mode",
    "--nodeport-addresses",
    "--cluster-cidr",
];

/// What is read of the metadata of objects that are kept as they are.
const READ_METADATA: [&str; 4] = ["name", "namespace", "uid", "labels"];

/// Environment variables whose values are read.
const READ_VARIABLES: [&str; 1] = ["FELIX_BPFENABLED"];

/// Takes secrets out of everything that is free text.
pub fn words(snapshot: &mut Snapshot) {
    let objects = &mut snapshot.objects;
    let text = |text: &mut String| {
        if let Some(clean) = scrub(text) {
            *text = clean;
        }
    };
    objects.crash_logs.values_mut().chain(objects.kube_proxy_logs.values_mut()).for_each(text);
    objects.events.iter_mut().filter_map(|e| e.message.as_mut()).for_each(text);
    let proxies = objects.kube_proxy_pods.iter_mut().chain(&mut objects.api_server_pods);
    for status in objects.pods.iter_mut().chain(proxies).filter_map(|p| p.status.as_mut()) {
        status.message.iter_mut().for_each(text);
        status.conditions.iter_mut().flatten().filter_map(|c| c.message.as_mut()).for_each(text);
        said(status).for_each(text);
    }
    for status in objects.deployments.iter_mut().filter_map(|d| d.status.as_mut()) {
        status.conditions.iter_mut().flatten().filter_map(|c| c.message.as_mut()).for_each(text);
    }
    for probe in snapshot.probes.iter_mut().chain(snapshot.host.iter_mut().filter_map(|h| h.proxy_health.as_mut())) {
        if let Probe { outcome: Outcome::Other { message }, .. } = probe {
            text(message);
        }
    }
    for gap in &mut snapshot.gaps {
        if let Gap { reason: GapReason::Failed { message }, .. } = gap {
            text(message);
        }
    }
    snapshot.targets.iter_mut().for_each(|t| text(&mut t.path));
}

/// The messages of containers, of this run and the last.
fn said(status: &mut PodStatus) -> impl Iterator<Item = &mut String> {
    let lists = [&mut status.init_container_statuses, &mut status.container_statuses];
    let containers = lists.into_iter().flatten().flatten();
    containers.flat_map(|c| c.state.iter_mut().chain(c.last_state.as_deref_mut())).flat_map(|s: &mut ContainerState| {
        let waiting = s.waiting.as_mut().and_then(|w| w.message.as_mut());
        [waiting, s.terminated.as_mut().and_then(|t| t.message.as_mut())].into_iter().flatten()
    })
}

/// The Snapshot as it may be handed on. Every check says the same of it as before.
#[must_use]
pub fn redact(mut snapshot: Snapshot) -> Snapshot {
    words(&mut snapshot);
    slim(&mut snapshot);
    let objects = &mut snapshot.objects;
    for deployment in &mut objects.deployments {
        clean(&mut deployment.metadata);
        if let Some(template) = deployment.spec.as_mut().map(|s| &mut s.template) {
            template.metadata.iter_mut().for_each(clean);
            template.spec.iter_mut().for_each(strip_template);
        }
    }
    for replica_set in &mut objects.replica_sets {
        clean(&mut replica_set.metadata);
        if let Some(template) = replica_set.spec.as_mut().and_then(|s| s.template.as_mut()) {
            template.metadata.iter_mut().for_each(clean);
            template.spec.iter_mut().for_each(strip_template);
        }
    }
    for daemon_set in &mut objects.daemon_sets {
        clean(&mut daemon_set.metadata);
        if let Some(template) = daemon_set.spec.as_mut().map(|s| &mut s.template) {
            template.metadata.iter_mut().for_each(clean);
            template.spec.iter_mut().for_each(strip_template);
        }
    }
    let proxies = objects.kube_proxy_pods.iter_mut().chain(&mut objects.api_server_pods);
    for pod in objects.pods.iter_mut().chain(proxies) {
        clean(&mut pod.metadata);
        let spec = pod.spec.as_mut();
        let lists = spec.map(|s| s.containers.iter_mut().chain(s.init_containers.iter_mut().flatten()));
        lists.into_iter().flatten().for_each(strip);
    }
    objects.services.iter_mut().for_each(|o| clean(&mut o.metadata));
    objects.endpoint_slices.iter_mut().for_each(|o| clean(&mut o.metadata));
    objects.endpoints.iter_mut().for_each(|o| clean(&mut o.metadata));
    objects.namespaces.iter_mut().for_each(|o| clean(&mut o.metadata));
    objects.network_policies.iter_mut().for_each(|o| clean(&mut o.metadata));
    objects.leases.iter_mut().for_each(|o| clean(&mut o.metadata));
    objects.events.iter_mut().for_each(|o| clean(&mut o.metadata));
    for node in &mut objects.nodes {
        clean(&mut node.metadata);
        if let Some(status) = node.status.as_mut() {
            status.images = None;
        }
    }
    // An application may log anything: what no check reads is left out.
    for text in objects.crash_logs.values_mut() {
        *text = text.lines().filter(|line| log::lacks_ipv6(line)).collect::<Vec<_>>().join("\n");
    }
    if let Some(config) = objects.kube_proxy_config.as_mut() {
        clean(&mut config.metadata);
        config.binary_data = None;
        for (file, text) in config.data.iter_mut().flatten() {
            *text = configuration(file, text);
        }
    }
    if let Some(config) = objects.cilium_config.as_mut() {
        clean(&mut config.metadata);
        config.binary_data = None;
        config.data.iter_mut().for_each(|data| data.retain(|key, _| cilium::READ.contains(&key.as_str())));
    }
    for policy in &mut objects.other_policies {
        let Some(metadata) = policy.get_mut("metadata").and_then(|m| m.as_object_mut()) else { continue };
        metadata.retain(|key, _| READ_METADATA.contains(&key.as_str()));
    }
    snapshot
}

/// Of kube-proxy's files: of its kubeconfig the server it names, of its configuration all that is no secret.
fn configuration(file: &str, text: &str) -> String {
    let kept = |line: &&str| match file {
        "kubeconfig.conf" => line.trim_start().trim_start_matches("- ").starts_with("server:"),
        "config.conf" => !["token", "-data:", "password", "secret"].iter().any(|secret| line.contains(secret)),
        _ => false,
    };
    let lines: Vec<&str> = text.lines().filter(kept).collect();
    let text = lines.join("\n");
    scrub(&text).unwrap_or(text)
}

/// Of pods that no target selects it is kept where they run, and which ports of their node they take. Where a target
/// selects none at all, every pod of its namespace may be the one that was meant.
fn slim(snapshot: &mut Snapshot) {
    let stay = staying(snapshot);
    for (pod, stays) in snapshot.objects.pods.iter_mut().zip(stay) {
        if !stays {
            shrink(pod);
        }
    }
}

/// Of each pod, whether it stays whole.
fn staying(snapshot: &Snapshot) -> Vec<bool> {
    let index = Index::of(snapshot);
    let mut whole: HashSet<&str> = HashSet::new();
    let mut selected: HashSet<*const Pod> = HashSet::new();
    for target in &snapshot.targets {
        let service = index.service(&target.namespace, &target.service);
        let pods = service.map(|s| index.selected(&target.namespace, s)).unwrap_or_default();
        if pods.is_empty() {
            whole.insert(&target.namespace);
        }
        selected.extend(pods.into_iter().map(std::ptr::from_ref::<Pod>));
    }
    let stays = |p: &Pod| {
        let home = p.metadata.namespace.as_deref().unwrap_or_default();
        selected.contains(&std::ptr::from_ref(p)) || whole.contains(home)
    };
    snapshot.objects.pods.iter().map(stays).collect()
}

fn shrink(pod: &mut Pod) {
    let meta = std::mem::take(&mut pod.metadata);
    pod.metadata = ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        labels: meta.labels,
        creation_timestamp: meta.creation_timestamp,
        deletion_timestamp: meta.deletion_timestamp,
        ..ObjectMeta::default()
    };
    if let Some(spec) = pod.spec.as_mut() {
        let whole = std::mem::take(spec);
        let takes =
            |c: &Container| c.ports.iter().flatten().any(|p| p.host_port.is_some() || whole.host_network == Some(true));
        let containers = if whole.containers.iter().any(takes) { whole.containers } else { Vec::new() };
        let ports = |c: Container| Container { name: c.name, image: c.image, ports: c.ports, ..Container::default() };
        *spec = PodSpec {
            node_name: whole.node_name,
            host_network: whole.host_network,
            containers: containers.into_iter().map(ports).collect(),
            ..PodSpec::default()
        };
    }
    if let Some(status) = pod.status.as_mut() {
        let whole = std::mem::take(status);
        *status = PodStatus { phase: whole.phase, pod_ip: whole.pod_ip, ..PodStatus::default() };
    }
}

fn strip_template(spec: &mut v1::PodSpec) {
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        for variable in container.env.iter_mut().flatten() {
            if !READ_VARIABLES.contains(&variable.name.as_str()) && variable.value.is_some() {
                variable.value = Some(REMOVED.to_owned());
            }
        }
        started_with(container.command.as_mut(), container.args.as_mut());
        container.lifecycle = None;
        let probes = [&mut container.readiness_probe, &mut container.liveness_probe, &mut container.startup_probe];
        probes.into_iter().flatten().for_each(probing);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume.csi.iter_mut().for_each(|v| v.volume_attributes = None);
        volume.flex_volume.iter_mut().for_each(|v| v.options = None);
    }
}

fn strip(container: &mut Container) {
    started_with(container.command.as_mut(), container.args.as_mut());
    container.readiness_probe.as_deref_mut().into_iter().for_each(probing);
}

/// The first word of a command is the program.
fn started_with(command: Option<&mut Vec<String>>, args: Option<&mut Vec<String>>) {
    if let Some([_, rest @ ..]) = command.map(Vec::as_mut_slice) {
        arguments(rest);
    }
    args.into_iter().for_each(|words| arguments(words));
}

fn probing(probe: &mut ContainerProbe) {
    if let Some(words) = probe.exec.as_mut().and_then(|e| e.command.as_mut()) {
        words.iter_mut().skip(1).for_each(|word| *word = REMOVED.to_owned());
    }
    if let Some(get) = probe.http_get.as_mut() {
        get.http_headers.iter_mut().flatten().for_each(|h| h.value = REMOVED.to_owned());
        if let Some((path, _)) = get.path.as_deref().and_then(|p| p.split_once('?')) {
            get.path = Some(format!("{path}?{REMOVED}"));
        }
    }
}

/// Values of flags and plain words, but for those that are read.
fn arguments(words: &mut [String]) {
    let mut read = false;
    for word in words {
        let flag = word.starts_with('-');
        match word.split_once('=') {
            Some((name, _)) if flag && READ_FLAGS.contains(&name) => {}
            Some((name, _)) if flag => *word = format!("{name}={REMOVED}"),
            _ if flag || read => {}
            _ => *word = REMOVED.to_owned(),
        }
        read = flag && READ_FLAGS.contains(&word.as_str());
    }
}

fn clean(metadata: &mut ObjectMeta) {
    // Who wrote the object, and when, is read; what they wrote is noise.
    for fields in metadata.managed_fields.iter_mut().flatten() {
        fields.fields_v1 = None;
        fields.fields_type = None;
    }
    if let Some(annotations) = metadata.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotate(annotations);
    }
}

fn annotate(annotations: &mut BTreeMap<String, String>) {
    for (name, value) in annotations {
        if ARGUMENTS.contains(&name.as_str()) {
            let mut words: Vec<String> = serde_json::from_str(value).unwrap_or_default();
            arguments(&mut words);
            *value = serde_json::to_string(&words).unwrap_or_default();
        } else if !READ_ANNOTATIONS.iter().any(|read| name.starts_with(read)) || name.ends_with("node-env") {
            *value = REMOVED.to_owned();
        } else if let Some(clean) = scrub(value) {
            *value = clean;
        }
    }
}
