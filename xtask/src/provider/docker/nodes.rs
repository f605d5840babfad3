//! The nodes that a command made as containers, found by the labels that it gives them.

use anyhow::{Result, bail};

use super::Docker;
use crate::provider::native::descriptor::Node;

/// A command that makes clusters, and how its containers are known.
#[derive(Debug)]
pub struct Maker {
    pub name: &'static str,
    /// The label with the cluster's name.
    pub cluster: &'static str,
    /// The label with the node's role.
    pub role: &'static str,
    /// The role of the control plane, and that of the others.
    pub roles: [&'static str; 2],
    /// Ends a cluster whose name follows.
    pub end: &'static str,
    pub containerd_socket: &'static str,
}

impl Maker {
    /// The names of its containers of a cluster, those that have ended as well; with `role` those alone that have it.
    pub fn containers(&self, docker: &Docker, cluster: &str, role: Option<&str>) -> Result<Vec<String>> {
        let of_cluster = format!("label={}={cluster}", self.cluster);
        let of_role = role.map(|role| format!("label={}={role}", self.role));
        let mut words = vec!["ps", "--all", "--format", "{{.Names}}", "--filter", &of_cluster];
        words.extend(of_role.iter().flat_map(|filter| ["--filter", filter.as_str()]));
        docker.lines(&words)
    }

    /// Fails where it has a cluster of this name whose containers are not ours.
    pub fn must_be_ours(&self, docker: &Docker, cluster: &str, ours: &[String]) -> Result<()> {
        let all = self.containers(docker, cluster, None)?;
        if let Some(stranger) = all.iter().find(|container| !ours.contains(container)) {
            bail!(
                "{} has a cluster {cluster} already that is not of our making (its node {stranger})\n  choose another name by --name, or end it: {} {cluster}",
                self.name,
                self.end
            );
        }
        Ok(())
    }

    /// The nodes of a cluster on this network, the control plane first, without their pods' networks.
    pub fn nodes(&self, docker: &Docker, cluster: &str, network: &str) -> Result<Vec<Node>> {
        let format = format!(
            "{{{{.Name}}}} {{{{index .Config.Labels \"{}\"}}}} {{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.IPAddress}}}}{{{{end}}}}",
            self.role
        );
        let of_cluster = format!("label={}={cluster}", self.cluster);
        let ids = docker.lines(&["ps", "--quiet", "--filter", &of_cluster])?;
        if ids.is_empty() {
            bail!("{} has made no node that runs", self.name);
        }
        let args = ["inspect", "--format", &format].map(str::to_owned);
        let mut nodes = Vec::new();
        for line in docker.lines(&[&args[..], &ids].concat())? {
            let words: Vec<_> = line.split(' ').collect();
            let [container, role, address] = words[..] else { bail!("docker inspect says of a node: {line}") };
            let container = container.trim_start_matches('/');
            if !self.roles.contains(&role) {
                continue;
            }
            nodes.push(Node {
                name: container.to_owned(),
                control_plane: role == self.roles[0],
                address: address.to_owned(),
                pod_cidr: String::new(),
                address_v6: None,
                pod_cidr_v6: None,
                enter: docker.enter(container),
                containerd_socket: self.containerd_socket.to_owned(),
            });
        }
        nodes.sort_by_key(|node| (!node.control_plane, node.name.len(), node.name.clone()));
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    const MAKER: Maker = Maker {
        name: "k3d",
        cluster: "k3d.cluster",
        role: "k3d.role",
        roles: ["server", "agent"],
        end: "k3d cluster delete",
        containerd_socket: "/s",
    };

    #[test]
    fn a_cluster_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let docker = fake::docker(folder.path(), "test \"$1\" = ps && echo k3d-a-server-0; true");
        let said = MAKER.must_be_ours(&docker, "a", &[]).unwrap_err().to_string();
        assert!(
            said.starts_with("k3d has a cluster a already that is not of our making (its node k3d-a-server-0)"),
            "{said}"
        );
        assert!(said.ends_with("end it: k3d cluster delete a"), "{said}");
        MAKER.must_be_ours(&docker, "a", &["k3d-a-server-0".to_owned()]).unwrap();
    }

    #[test]
    fn nodes_are_read_with_the_control_plane_first_and_without_what_is_no_node() {
        let folder = tempfile::tempdir().unwrap();
        let script = "case $1 in ps) echo 1; echo 2; echo 3;; inspect) echo '/k3d-a-agent-0 agent 172.30.0.3'; \
                      echo '/k3d-a-tools noRole 172.30.0.4'; echo '/k3d-a-server-0 server 172.30.0.2';; esac";
        let nodes = MAKER.nodes(&fake::docker(folder.path(), script), "a", "n").unwrap();
        let shown: Vec<_> = nodes.iter().map(|n| (n.name.as_str(), n.control_plane, n.address.as_str())).collect();
        assert_eq!(shown, [("k3d-a-server-0", true, "172.30.0.2"), ("k3d-a-agent-0", false, "172.30.0.3")]);
        assert_eq!(nodes[0].enter[1..], ["exec", "-i", "k3d-a-server-0"]);
        assert!(MAKER.nodes(&fake::docker(folder.path(), "true"), "a", "n").is_err());
    }
}
