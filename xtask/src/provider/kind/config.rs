//! What kind is told: its version for this machine, and the configuration of a cluster. Pure.

use std::path::Path;

use anyhow::{Result, bail};

use crate::provider::native::plan::{POD_RANGE, PUBLIC_ADDRESS, ProxyMode, minor};

/// What decides about the versions and about some settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The one hierarchy of version 2.
    pub cgroup_v2: bool,
    /// Whether containers can have CAP_SYS_RESOURCE: a better OOM score needs it.
    pub sys_resource: bool,
}

/// A release of kind, with the Kubernetes versions that it can run.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    pub version: &'static str,
    /// The newest minor version: its node image is the release's default.
    newest: u32,
    /// What is started when nothing is said.
    pub kubernetes: &'static str,
}

/// The last one that supports cgroup v1.
const LAST_FOR_V1: Release = Release { version: "v0.30.0", newest: 34, kubernetes: "v1.34.4" };
const NEWEST: Release = Release { version: "v0.32.0", newest: 36, kubernetes: "v1.36.1" };
/// The oldest minor version that any of our providers starts.
const OLDEST: u32 = 30;

impl Host {
    pub fn release(self) -> &'static Release {
        if self.cgroup_v2 { &NEWEST } else { &LAST_FOR_V1 }
    }
}

/// Fails where kind cannot run this version here, with those that it can.
pub fn check_version(host: Host, version: &str) -> Result<()> {
    let release = host.release();
    let asked = minor(version)?;
    if !(OLDEST..=release.newest).contains(&asked) {
        let why = if host.cgroup_v2 { "the newest" } else { "the last one for a machine with cgroup v1" };
        bail!(
            "kind {} ({why}) does not run Kubernetes {version}: it runs v1.{OLDEST} to v1.{}, by default {}\n  --provider native runs others",
            release.version,
            release.newest,
            release.kubernetes
        );
    }
    Ok(())
}

/// A cluster as kind shall make it.
pub struct Wanted<'a> {
    pub image: &'a str,
    pub workers: u8,
    pub proxy_mode: ProxyMode,
    /// A folder of this machine that nodes see at the same place.
    pub shared: &'a Path,
}

/// kind's configuration (kind.x-k8s.io/v1alpha4).
pub fn cluster(host: Host, wanted: &Wanted<'_>) -> String {
    let mut text = format!(
        "kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  kubeProxyMode: {}
  podSubnet: {POD_RANGE}
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer:
    certSANs: [localhost, 127.0.0.1, {PUBLIC_ADDRESS}]
",
        wanted.proxy_mode.name()
    );
    if !host.sys_resource {
        text.push_str("- |\n  kind: KubeletConfiguration\n  oomScoreAdj: 0\n");
    }
    text.push_str("nodes:\n");
    for index in 0..=wanted.workers {
        let role = if index == 0 { "control-plane" } else { "worker" };
        let shared = wanted.shared.display();
        text.push_str(&format!(
            "- role: {role}
  image: {}
  extraMounts:
  - hostPath: {shared}
    containerPath: {shared}
    readOnly: true
",
            wanted.image
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V1: Host = Host { cgroup_v2: false, sys_resource: false };
    const V2: Host = Host { cgroup_v2: true, sys_resource: true };

    fn shown(host: Host, proxy_mode: ProxyMode) -> String {
        cluster(host, &Wanted { image: "node:1", workers: 1, proxy_mode, shared: Path::new("/d") })
    }

    #[test]
    fn a_cluster_on_cgroup_v1_without_all_rights() {
        assert_eq!(
            shown(V1, ProxyMode::Nftables),
            "kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  kubeProxyMode: nftables
  podSubnet: 10.244.0.0/16
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer:
    certSANs: [localhost, 127.0.0.1, 203.0.113.10]
- |
  kind: KubeletConfiguration
  oomScoreAdj: 0
nodes:
- role: control-plane
  image: node:1
  extraMounts:
  - hostPath: /d
    containerPath: /d
    readOnly: true
- role: worker
  image: node:1
  extraMounts:
  - hostPath: /d
    containerPath: /d
    readOnly: true
"
        );
    }

    #[test]
    fn a_machine_with_all_rights_needs_no_word_about_the_kubelet() {
        let text = shown(V2, ProxyMode::None);
        assert!(!text.contains("KubeletConfiguration") && text.contains("  kubeProxyMode: none\n"), "{text}");
    }

    #[test]
    fn versions_that_cannot_run_are_refused_with_those_that_can() {
        assert_eq!((V1.release().version, V2.release().version), ("v0.30.0", "v0.32.0"));
        for (host, version) in [(V1, "v1.34.4"), (V1, "v1.31.0"), (V2, "v1.36.1")] {
            check_version(host, version).unwrap();
        }
        let said = check_version(V1, "v1.37.2").unwrap_err().to_string();
        for word in ["kind v0.30.0", "cgroup v1", "v1.37.2", "v1.30 to v1.34", "v1.34.4"] {
            assert!(said.contains(word), "{said}");
        }
        assert!(check_version(V2, "v1.37.2").is_err() && check_version(V2, "1.34").is_err());
    }
}
