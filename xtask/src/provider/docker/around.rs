//! What stands around the nodes of a cluster in containers: the networks, the external client, the gateway, the images of the
//! stand-ins; and the cluster's description.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::Docker;
use super::network::{self, Range};
use crate::provider::host_settings;
use crate::provider::native::descriptor::{CLIENT_KUBECONFIG, Descriptor, Gateway, Member, Node};
use crate::provider::native::plan::{PUBLIC_ADDRESS, Places, Request};
use crate::provider::native::{packages, teardown};
use crate::provider::standin;

/// How long nodes and add-ons may take until they are ready.
pub const READY: Duration = Duration::from_secs(120);

/// What a cluster is described by besides its nodes.
pub struct Around<'a> {
    pub docker: &'a Docker,
    pub request: &'a Request,
    pub places: &'a Places,
    pub generation: u8,
    pub client: Range,
    /// Seen at the same place by every member; a client that is kept goes on seeing it.
    pub shared: PathBuf,
}

impl<'a> Around<'a> {
    /// Makes all that is there before the first node: images, networks, and of this image the client and the gateway.
    pub fn prepare(
        docker: &'a Docker,
        request: &'a Request,
        places: &'a Places,
        image: &str,
        install: bool,
        step: &dyn Fn(&str),
    ) -> Result<Self> {
        let shared = places.member("client");
        fs::create_dir_all(&shared)?;
        if install {
            packages::ensure_these(&[standin::BUSYBOX], true)?;
        }
        standin::build(&shared.join("standin.tar"))?;
        step("images made");
        let next = teardown::generation(places)?.map_or(0, |last| last.wrapping_add(1));
        let generation = network::make_nodes_network(docker, &request.name, next)?;
        let client = network::ensure_client(docker, &request.name, image, &shared.display().to_string())?;
        network::start_gateway(docker, &request.name, image, generation, client)?;
        step("client and gateway connected");
        host_settings::record()?;
        Ok(Self { docker, request, places, generation, client, shared })
    }

    /// Leads the public address to the control plane.
    pub fn translate(&self, control_plane: &Node) -> Result<()> {
        network::translate(self.docker, &self.request.name, self.generation, control_plane.address.parse()?)
    }

    /// Makes the gateway the nodes' way out, and gives them the stand-ins' images.
    pub fn settle(&self, nodes: &[Node]) -> Result<()> {
        let way_out = Range::nodes(self.generation).gateway();
        let archive = self.shared.join("standin.tar").display().to_string();
        // Docker's tmpfs forbids programs, and what is tested is put there.
        let line = format!(
            "ip route replace default via {way_out}; mount -o remount,exec /run; \
             ctr --namespace k8s.io images import {archive} >/dev/null"
        );
        self.docker.on_each(nodes, &line)
    }

    /// Describes the cluster, and keeps the description. Which pods' network a node has is the controllers' choice, so
    /// they are asked.
    pub fn describe(
        &self,
        provider: &str,
        mut nodes: Vec<Node>,
        kubectl: impl Fn(&[&str]) -> Result<String>,
    ) -> Result<Descriptor> {
        for node in &mut nodes {
            let asked = ["get", "node", &node.name, "-o", "jsonpath={.spec.podCIDR}"];
            node.pod_cidr = kubectl(&asked)?.trim().to_owned();
        }
        let request = self.request;
        let enter = |container: &str| self.docker.enter(container);
        let descriptor = Descriptor {
            name: request.name.clone(),
            provider: provider.to_owned(),
            kubernetes_version: request.version.clone(),
            proxy_mode: request.proxy_mode.name().to_owned(),
            ec2: false,
            dual_stack: false,
            generation: self.generation,
            public_address: PUBLIC_ADDRESS.to_string(),
            public_address_v6: None,
            kubeconfig: CLIENT_KUBECONFIG.to_owned(),
            bin: self.shared.display().to_string(),
            run_dir: self.places.run.display().to_string(),
            nodes,
            client: Member {
                name: "client".to_owned(),
                address: self.client.first_member().to_string(),
                enter: enter(&network::client(&request.name)),
            },
            gateway: Gateway { name: "gateway".to_owned(), enter: enter(&network::gateway(&request.name)) },
        };
        descriptor.save(self.places)?;
        Ok(descriptor)
    }
}

/// Gives the client a kubeconfig: the administrator's, with the public address.
pub fn give_client(docker: &Docker, cluster: &str, admins: &str) -> Result<()> {
    let config = of_client(admins, PUBLIC_ADDRESS);
    let put = format!("umask 077; mkdir -p /root/.kube; cat > {CLIENT_KUBECONFIG}");
    docker.feed(&network::client(cluster), &["sh", "-ec", &put], &config).map(drop)
}

/// The administrator's kubeconfig, as the external client has it.
fn of_client(config: &str, public: Ipv4Addr) -> String {
    let lines = config.lines().map(|line| match line.split_once("server: ") {
        Some((before, _)) => format!("{before}server: https://{public}:6443\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_dials_the_public_address() {
        let config = "clusters:\n- cluster:\n    server: https://e2e-control-plane:6443\n  name: e2e\n";
        assert_eq!(
            of_client(config, PUBLIC_ADDRESS),
            "clusters:\n- cluster:\n    server: https://203.0.113.10:6443\n  name: e2e\n"
        );
    }
}
