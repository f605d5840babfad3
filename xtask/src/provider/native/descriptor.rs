//! What the live suite and people learn of a running cluster: `cluster.json` in its run folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::dual_stack::{NodeV6, PUBLIC_ADDRESS_V6};
use super::node::CONTAINERD_SOCKET;
use super::plan::{CLIENT_ADDRESS, PUBLIC_ADDRESS, Places, Plan, Request};
use super::processes::Running;
use crate::provider::k3d;
use e2e::cluster::is_k3s;

/// The whole cluster. `enter` of a member is an argv prefix: what follows it runs there.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub name: String,
    pub provider: String,
    pub kubernetes_version: String,
    pub proxy_mode: String,
    pub ec2: bool,
    #[serde(default)]
    pub dual_stack: bool,
    /// Counts the clusters that followed each other behind one kept client.
    pub generation: u8,
    pub public_address: String,
    /// Of a dual-stack cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address_v6: Option<String>,
    /// On the client.
    pub kubeconfig: String,
    /// The folder with kubectl, the same on every member.
    pub bin: String,
    pub run_dir: String,
    pub nodes: Vec<Node>,
    pub client: Member,
    pub gateway: Gateway,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub control_plane: bool,
    pub address: String,
    pub pod_cidr: String,
    /// In a dual-stack cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_v6: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cidr_v6: Option<String>,
    pub enter: Vec<String>,
    pub containerd_socket: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub address: String,
    pub enter: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Gateway {
    pub name: String,
    pub enter: Vec<String>,
}

/// The external client's kubeconfig, inside the client.
pub const CLIENT_KUBECONFIG: &str = "/root/.kube/config";

impl Descriptor {
    /// Describes a cluster whose members run; `running` has one entry a node, in the plan's order.
    pub fn new(plan: &Plan, bin: &Path, gateway: &Running, client: &Running, running: &[Running]) -> Self {
        Self {
            name: plan.request.name.clone(),
            provider: "native".into(),
            kubernetes_version: plan.request.version.clone(),
            proxy_mode: plan.request.proxy_mode.name().into(),
            ec2: plan.request.ec2,
            dual_stack: plan.request.dual_stack,
            generation: plan.generation,
            public_address: PUBLIC_ADDRESS.to_string(),
            public_address_v6: plan.request.dual_stack.then(|| PUBLIC_ADDRESS_V6.to_string()),
            kubeconfig: CLIENT_KUBECONFIG.into(),
            bin: bin.display().to_string(),
            run_dir: plan.places.run.display().to_string(),
            nodes: plan
                .nodes
                .iter()
                .zip(running)
                .map(|(node, running)| Node {
                    name: node.name.clone(),
                    control_plane: node.control_plane,
                    address: node.address.to_string(),
                    pod_cidr: node.pod_cidr(),
                    address_v6: node.v6.as_ref().map(|v6| v6.address.to_string()),
                    pod_cidr_v6: node.v6.as_ref().map(NodeV6::pod_cidr),
                    enter: running.enter(),
                    containerd_socket: CONTAINERD_SOCKET.into(),
                })
                .collect(),
            client: Member { name: "client".into(), address: CLIENT_ADDRESS.to_string(), enter: client.enter() },
            gateway: Gateway { name: "gateway".into(), enter: gateway.enter() },
        }
    }

    /// Fails where the cluster, which runs, is not as asked.
    pub fn must_be(&self, request: &Request) -> Result<()> {
        let same = self.kubernetes_version == request.version
            && self.proxy_mode == request.proxy_mode.name()
            && self.nodes.len() == usize::from(request.workers) + 1
            && self.ec2 == request.ec2
            && self.dual_stack == request.dual_stack;
        ensure!(
            same,
            "cluster {name} runs already, but not as asked ({}, {} workers, kube-proxy {}, {})\n  end it first: cargo xtask cluster down --name {name}",
            self.kubernetes_version,
            self.nodes.len() - 1,
            self.proxy_mode,
            if self.dual_stack { "IPv4 and IPv6" } else { "IPv4" },
            name = self.name
        );
        Ok(())
    }

    /// Writes the file; who reads it sees the whole.
    pub fn save(&self, places: &Places) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&places.run)?;
        serde_json::to_writer_pretty(file.as_file_mut(), self)?;
        file.persist(places.descriptor())?;
        Ok(())
    }

    /// Reads the file; `None` where there is none.
    pub fn load(places: &Places) -> Result<Option<Self>> {
        let path = places.descriptor();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// How to enter a member by name.
    pub fn enter(&self, member: &str) -> Option<&[String]> {
        match member {
            "client" => Some(&self.client.enter),
            "gateway" => Some(&self.gateway.enter),
            _ => self.nodes.iter().find(|n| n.name == member).map(|n| n.enter.as_slice()),
        }
    }

    /// Where the administrator's kubeconfig lies on the control plane.
    pub fn admins_kubeconfig(&self) -> &'static str {
        if is_k3s(&self.provider) { k3d::ADMIN } else { "/etc/kubernetes/admin.conf" }
    }

    /// Whether the member is a control-plane node.
    pub fn is_control_plane(&self, member: &str) -> bool {
        self.nodes.iter().any(|n| n.name == member && n.control_plane)
    }

    /// All members' names.
    pub fn members(&self) -> Vec<&str> {
        self.nodes.iter().map(|n| n.name.as_str()).chain(["client", "gateway"]).collect()
    }
}
