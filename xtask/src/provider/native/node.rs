//! A node's containerd and kubelet, and the bridge network of its pods.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::build::Programs;
use super::control_plane::with_log;
use super::plan::{DNS_SERVICE, Node, Plan};
use super::processes::Running;
use super::{cgroup, files, images};
use crate::run;

/// Where containerd listens, inside the node.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Writes what the node's programs read. `/etc` of the node is the overlay's upper folder before the node starts.
pub fn write_files(plan: &Plan, node: &Node) -> Result<()> {
    let data = plan.places.member(&node.name);
    let etc = etc(&data);
    files::write(&etc.join("containerd/config.toml"), &containerd_config())?;
    files::write(&etc.join("cni/net.d/10-bridge.conflist"), &pod_network(node))?;
    files::write(&data.join("kubelet/config.yaml"), &kubelet_config(plan, node))
}

/// A member's private /etc, while it does not run.
pub fn etc(data: &Path) -> PathBuf {
    data.join("overlay/etc/upper")
}

/// Starts containerd and waits until it answers.
pub fn start_containerd(plan: &Plan, programs: &Programs, on: &Running) -> Result<()> {
    let bin = programs.containerd.display();
    on.daemon(
        &plan.places.log(&on.member, "containerd"),
        &[format!("PATH={bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")],
        &[format!("{bin}/containerd"), "--config=/etc/containerd/config.toml".into()],
    )?;
    run::wait_for("containerd", Duration::from_secs(30), || {
        on.run(&[format!("{bin}/ctr"), format!("--address={CONTAINERD_SOCKET}"), "version".into()])
    })
    .map(drop)
    .map_err(|e| with_log(e, plan, &on.member, "containerd"))
}

/// Starts kubelet; the node is Ready some seconds later.
pub fn start_kubelet(plan: &Plan, programs: &Programs, node: &Node, on: &Running) -> Result<()> {
    on.daemon(
        &plan.places.log(&on.member, "kubelet"),
        &[],
        &[
            programs.kubernetes.join("kubelet").display().to_string(),
            "--config=/var/lib/kubelet/config.yaml".into(),
            "--kubeconfig=/etc/kubernetes/kubelet.conf".into(),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={}", node.node_ip()),
        ],
    )
}

fn containerd_config() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{}"

[plugins."io.containerd.cri.v1.runtime"]
  # A negative score needs a right that not every root has.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "/etc/cni/net.d"
"#,
        images::PAUSE
    )
}

fn pod_network(node: &Node) -> String {
    // host-local gives a pod one address of each list.
    let ranges: Vec<_> = node.pod_cidrs().iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if node.v6.is_some() {
        routes.push(json!({ "dst": "::/0" }));
    }
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "bridge",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": "/run/cni-ipam",
                    "ranges": ranges,
                    "routes": routes,
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    });
    format!("{config:#}\n")
}

/// JSON is YAML; kubelet's file is named as kubeadm names it.
fn kubelet_config(plan: &Plan, node: &Node) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/pki/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup::root(&plan.request.name, &node.name),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "enforceNodeAllocatable": [],
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                          "nodefs.inodesFree": "1%" },
        "failCgroupV1": false,
        "failSwapOn": false,
        "healthzBindAddress": "127.0.0.1",
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": true,
        "oomScoreAdj": 0,
        "resolvConf": "/etc/resolv.conf",
        "rotateCertificates": false,
        "shutdownGracePeriod": "0s",
    });
    let mut config = config;
    // The field is younger than the oldest version that runs here.
    if super::plan::minor(&plan.request.version).is_ok_and(|m| m < 31)
        && let Some(map) = config.as_object_mut()
    {
        map.remove("failCgroupV1");
    }
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::{ProxyMode, Request};
    use super::*;

    #[test]
    fn configurations_name_the_node() {
        let plan = Plan::new(
            Request {
                name: "lab".into(),
                version: "v1.37.2".into(),
                workers: 1,
                proxy_mode: ProxyMode::Iptables,
                ec2: false,
                dual_stack: true,
                image: None,
            },
            0,
        );
        let kubelet: serde_json::Value = serde_json::from_str(&kubelet_config(&plan, &plan.nodes[1])).unwrap();
        assert_eq!(kubelet["cgroupRoot"], "/kubectl-bookaccess/lab/w1");
        assert_eq!(kubelet["failCgroupV1"], false);
        let network: serde_json::Value = serde_json::from_str(&pod_network(&plan.nodes[1])).unwrap();
        let ipam = &network["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:244:1::/64" }]]));
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
        let one = Node { v6: None, ..plan.nodes[1].clone() };
        assert!(!pod_network(&one).contains("::"));
        assert!(containerd_config().contains(images::PAUSE));
    }
}
