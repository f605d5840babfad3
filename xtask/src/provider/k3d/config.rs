//! What k3d is told: the images, and the configuration of a cluster. Pure.

use std::path::Path;

use anyhow::{Result, bail};

use crate::provider::native::plan::{POD_RANGE, PUBLIC_ADDRESS, ProxyMode, minor};

/// The release whose configuration this is.
pub const VERSION: &str = "v5.9.0";
/// What is started when nothing is said.
const DEFAULT: &str = "v1.35.5";
/// The same where the machine has cgroup v1, which kubelets refuse from v1.35 on.
const DEFAULT_FOR_V1: &str = "v1.34.4";
const LAST_FOR_V1: u32 = 34;

pub fn default_version(cgroup_v2: bool) -> &'static str {
    if cgroup_v2 { DEFAULT } else { DEFAULT_FOR_V1 }
}

/// Fails where k3s of this version does not start here.
pub fn check_version(cgroup_v2: bool, version: &str) -> Result<()> {
    if minor(version)? > LAST_FOR_V1 && !cgroup_v2 {
        bail!(
            "k3s of Kubernetes {version} does not start on a machine with cgroup v1: v1.{LAST_FOR_V1} is the last that does, by default {DEFAULT_FOR_V1}\n  --provider native runs others"
        );
    }
    Ok(())
}

/// k3s' image for a Kubernetes version: the first release of k3s for it.
pub fn image(version: &str) -> String {
    format!("rancher/k3s:{version}-k3s1")
}

/// The image of the container by which k3d looks at the network.
pub fn tools_image() -> String {
    format!("ghcr.io/k3d-io/k3d-tools:{}", VERSION.trim_start_matches('v'))
}

/// What each server of k3s is told.
pub fn server() -> [String; 3] {
    [
        format!("--tls-san={PUBLIC_ADDRESS}"),
        "--disable=traefik,servicelb,metrics-server,local-storage".to_owned(),
        format!("--cluster-cidr={POD_RANGE}"),
    ]
}

/// A cluster as k3d shall make it.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub network: &'a str,
    pub workers: u8,
    pub proxy_mode: ProxyMode,
    /// A folder of this machine that nodes see at the same place.
    pub shared: &'a Path,
}

/// k3d's configuration (k3d.io/v1alpha5). A failed start is left as it is, to be looked at. The volume for images stays:
/// without one, k3d v5.9.0 looks for it at nodes that it has not made yet, and fails.
pub fn cluster(wanted: &Wanted<'_>) -> Result<String> {
    let shared = wanted.shared.display().to_string();
    if let Some(sign) = ['$', ':'].into_iter().find(|sign| shared.contains(*sign)) {
        bail!("{shared}: k3d cannot mount a folder with {sign} in its name; CARGO_HOME and HOME decide where it lies");
    }
    let everywhere = "[\"server:*\", \"agent:*\"]";
    let servers = "[\"server:*\"]";
    let mut text = format!(
        "apiVersion: k3d.io/v1alpha5
kind: Simple
metadata:
  name: {name}
servers: 1
agents: {workers}
kubeAPI:
  hostIP: 127.0.0.1
image: {image}
network: {network}
volumes:
- volume: {shared}:{shared}:ro
  nodeFilters: {everywhere}
options:
  k3d:
    wait: true
    timeout: 120s
    disableLoadbalancer: true
    disableRollback: true
  kubeconfig:
    updateDefaultKubeconfig: false
    switchCurrentContext: false
  k3s:
    extraArgs:
",
        name = wanted.name,
        workers = wanted.workers,
        image = wanted.image,
        network = wanted.network,
    );
    let mut add = |arg: &str, nodes: &str| text.push_str(&format!("    - arg: {arg}\n      nodeFilters: {nodes}\n"));
    for word in server() {
        add(&word, servers);
    }
    match wanted.proxy_mode {
        ProxyMode::Iptables => {}
        ProxyMode::Nftables => add("--kube-proxy-arg=proxy-mode=nftables", everywhere),
        // Agents learn it of the server.
        ProxyMode::None => add("--disable-kube-proxy", servers),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(proxy_mode: ProxyMode) -> String {
        let image = image("v1.35.5");
        let network = "bookaccess-e2e";
        let wanted =
            Wanted { name: "e2e", image: &image, network, workers: 2, proxy_mode, shared: Path::new("/c/client") };
        cluster(&wanted).unwrap()
    }

    const IPTABLES: &str = "apiVersion: k3d.io/v1alpha5
kind: Simple
metadata:
  name: e2e
servers: 1
agents: 2
kubeAPI:
  hostIP: 127.0.0.1
image: rancher/k3s:v1.35.5-k3s1
network: bookaccess-e2e
volumes:
- volume: /c/client:/c/client:ro
  nodeFilters: [\"server:*\", \"agent:*\"]
options:
  k3d:
    wait: true
    timeout: 120s
    disableLoadbalancer: true
    disableRollback: true
  kubeconfig:
    updateDefaultKubeconfig: false
    switchCurrentContext: false
  k3s:
    extraArgs:
    - arg: --tls-san=203.0.113.10
      nodeFilters: [\"server:*\"]
    - arg: --disable=traefik,servicelb,metrics-server,local-storage
      nodeFilters: [\"server:*\"]
    - arg: --cluster-cidr=10.244.0.0/16
      nodeFilters: [\"server:*\"]
";

    #[test]
    fn a_cluster_in_each_mode_of_kube_proxy() {
        assert_eq!(shown(ProxyMode::Iptables), IPTABLES);
        let nftables =
            "    - arg: --kube-proxy-arg=proxy-mode=nftables\n      nodeFilters: [\"server:*\", \"agent:*\"]\n";
        assert_eq!(shown(ProxyMode::Nftables), format!("{IPTABLES}{nftables}"));
        let none = "    - arg: --disable-kube-proxy\n      nodeFilters: [\"server:*\"]\n";
        assert_eq!(shown(ProxyMode::None), format!("{IPTABLES}{none}"));
    }

    #[test]
    fn a_folder_that_k3d_would_misread_is_refused() {
        for folder in ["/c/$HOME", "/c:d"] {
            let wanted = Wanted {
                name: "a",
                image: "i",
                network: "n",
                workers: 0,
                proxy_mode: ProxyMode::Iptables,
                shared: Path::new(folder),
            };
            assert!(cluster(&wanted).unwrap_err().to_string().starts_with(folder));
        }
    }

    #[test]
    fn a_version_is_that_of_an_image_and_of_a_machine() {
        assert_eq!(image(default_version(true)), "rancher/k3s:v1.35.5-k3s1");
        assert_eq!(image(default_version(false)), "rancher/k3s:v1.34.4-k3s1");
        assert_eq!(tools_image(), "ghcr.io/k3d-io/k3d-tools:5.9.0");
        check_version(true, "v1.37.2").unwrap();
        check_version(false, "v1.34.4").unwrap();
        let said = check_version(false, "v1.35.5").unwrap_err().to_string();
        for word in ["v1.35.5", "cgroup v1", "v1.34.4", "--provider native"] {
            assert!(said.contains(word), "{said}");
        }
        assert!(check_version(true, "1.35.5").is_err());
    }
}
