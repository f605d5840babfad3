//! A Snapshot as a file: for a look without the cluster, and for a bug report. Nothing secret is in it.

use std::path::Path;

use crate::facts::{cilium, log};
use crate::model::Snapshot;
use crate::model::snapshot::SNAPSHOT_VERSION;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path}: {message}")]
    Malformed { path: String, message: String },
    #[error("{path}: shape {found}, but this program reads {SNAPSHOT_VERSION}")]
    Version { path: String, found: u32 },
}

/// Writes a Snapshot as JSON, secrets stripped.
///
/// # Errors
/// Where the file cannot be written.
pub fn save(snapshot: &Snapshot, path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let text = serde_json::to_string_pretty(&redact(snapshot.clone())).map_err(|e| io(std::io::Error::other(e)))?;
    std::fs::write(path, text).map_err(io)
}

/// Reads a Snapshot that `save` wrote; YAML is read too.
///
/// # Errors
/// Where the file is not there, is no Snapshot, or one of another version.
pub fn read(path: &Path) -> Result<Snapshot, Error> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: name.clone(), source })?;
    let snapshot: Snapshot = serde_saphyr::from_str(&text)
        .map_err(|error| Error::Malformed { path: name.clone(), message: error.to_string() })?;
    if snapshot.version != SNAPSHOT_VERSION {
        return Err(Error::Version { path: name, found: snapshot.version });
    }
    Ok(snapshot)
}

/// Strips what may be secret: environment values, the last-applied annotation (it repeats them), managed fields
/// (noise), and kube-proxy's kubeconfig but for the server it names.
fn redact(mut snapshot: Snapshot) -> Snapshot {
    let objects = &mut snapshot.objects;
    for deployment in &mut objects.deployments {
        if let Some(spec) = deployment.spec.as_mut().and_then(|s| s.template.spec.as_mut()) {
            strip(spec);
        }
        clean(&mut deployment.metadata);
    }
    for daemon_set in &mut objects.daemon_sets {
        if let Some(spec) = daemon_set.spec.as_mut().and_then(|s| s.template.spec.as_mut()) {
            strip(spec);
        }
        clean(&mut daemon_set.metadata);
    }
    for pod in objects.pods.iter_mut().chain(&mut objects.kube_proxy_pods) {
        if let Some(spec) = pod.spec.as_mut() {
            strip(spec);
        }
        clean(&mut pod.metadata);
    }
    objects.services.iter_mut().for_each(|s| clean(&mut s.metadata));
    objects.nodes.iter_mut().for_each(|n| clean(&mut n.metadata));
    objects.network_policies.iter_mut().for_each(|p| clean(&mut p.metadata));
    // An application may log anything: what no check reads is left out.
    for text in objects.crash_logs.values_mut() {
        *text = text.lines().filter(|line| log::lacks_ipv6(line)).collect::<Vec<_>>().join("\n");
    }
    if let Some(config) = objects.kube_proxy_config.as_mut() {
        clean(&mut config.metadata);
        for text in config.data.iter_mut().flat_map(|d| d.values_mut()) {
            let kept = |line: &&str| !["token:", "-data:", "password:"].iter().any(|secret| line.contains(secret));
            *text = text.lines().filter(kept).collect::<Vec<_>>().join("\n");
        }
    }
    if let Some(config) = objects.cilium_config.as_mut() {
        clean(&mut config.metadata);
        config.data.iter_mut().for_each(|data| data.retain(|key, _| cilium::READ.contains(&key.as_str())));
    }
    snapshot
}

fn strip(spec: &mut k8s_openapi::api::core::v1::PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    for variable in spec.containers.iter_mut().chain(init).flat_map(|c| c.env.iter_mut().flatten()) {
        variable.value = variable.value.as_ref().map(|_| "(removed)".to_owned());
    }
}

fn clean(metadata: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = metadata.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_what_an_application_said_only_what_a_check_reads_is_kept() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/check/testdata/ba2005.yaml");
        let mut snapshot = read(&path).unwrap();
        for said in snapshot.objects.crash_logs.values_mut() {
            said.push_str("password=hunter2\n");
        }
        let kept: Vec<String> = redact(snapshot).objects.crash_logs.into_values().collect();
        assert_eq!(kept, ["OSError: [Errno 97] Address family not supported by protocol"]);
    }
}
