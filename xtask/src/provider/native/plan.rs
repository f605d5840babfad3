//! What a cluster consists of: its members, their names and addresses, where its files lie. Pure.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::dual_stack::{NodeV6, POD_RANGE_V6, SERVICE_RANGE_V6};

/// The address the external client dials; the gateway translates it 1:1 to the control plane (TEST-NET-3, RFC 5737).
pub const PUBLIC_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The external client's own address and its way out (TEST-NET-2, RFC 5737).
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The gateway's address on the client's side.
pub const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// kubeadm's usual ranges.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// kubeadm's default Service range.
pub const SERVICE_RANGE: &str = "10.96.0.0/12";
/// The Service `kubernetes`.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The Service `kube-dns`.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// EC2's instance metadata service.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How kube-proxy programs the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProxyMode {
    #[default]
    Iptables,
    Nftables,
    /// There is no kube-proxy at all
    None,
}

impl ProxyMode {
    /// As kube-proxy's configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::None => "none",
        }
    }
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub name: String,
    pub version: String,
    pub workers: u8,
    pub proxy_mode: ProxyMode,
    pub ec2: bool,
    /// IPv6 besides IPv4, for nodes, pods and Services.
    pub dual_stack: bool,
    /// The nodes' image, where it is another than that of the version (provider testcontainers alone asks).
    pub image: Option<String>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub control_plane: bool,
    pub address: Ipv4Addr,
    /// First address of the node's pod network; the network is a /24.
    pub pods: Ipv4Addr,
    /// In a dual-stack cluster.
    pub v6: Option<NodeV6>,
}

impl Node {
    /// The node's pod network.
    pub fn pod_cidr(&self) -> String {
        format!("{}/24", self.pods)
    }

    /// The node's pod networks, one a family.
    pub fn pod_cidrs(&self) -> Vec<String> {
        [self.pod_cidr()].into_iter().chain(self.v6.as_ref().map(NodeV6::pod_cidr)).collect()
    }

    /// The node's addresses, as kubelet's flag takes them.
    pub fn node_ip(&self) -> String {
        joined(&self.address.to_string(), self.v6.as_ref().map(|v6| v6.address.to_string()).as_deref())
    }
}

/// The whole cluster as it shall be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub request: Request,
    /// The nodes' network is 172.30.GENERATION.0/24: a cluster that follows another behind the same client gets a
    /// new one.
    pub generation: u8,
    pub nodes: Vec<Node>,
    pub places: Places,
}

impl Plan {
    /// Lays out the members.
    pub fn new(request: Request, generation: u8) -> Self {
        let nodes = (0..=request.workers)
            .map(|index| Node {
                name: if index == 0 { "cp1".to_owned() } else { format!("w{index}") },
                control_plane: index == 0,
                address: Ipv4Addr::new(172, 30, generation, 10 + index),
                pods: Ipv4Addr::new(10, 244, index, 0),
                v6: request.dual_stack.then(|| NodeV6::new(generation, index)),
            })
            .collect();
        let places = Places::new(&request.name);
        Self { request, generation, nodes, places }
    }

    /// The node that the public address leads to.
    pub fn control_plane(&self) -> &Node {
        &self.nodes[0]
    }

    /// The nodes' way out.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.generation, 1)
    }

    /// The nodes' network.
    pub fn node_range(&self) -> String {
        format!("172.30.{}.0/24", self.generation)
    }

    /// The pods' ranges, one a family.
    pub fn pod_ranges(&self) -> String {
        joined(POD_RANGE, self.request.dual_stack.then_some(POD_RANGE_V6))
    }

    /// The Services' ranges, one a family.
    pub fn service_ranges(&self) -> String {
        joined(SERVICE_RANGE, self.request.dual_stack.then_some(SERVICE_RANGE_V6))
    }
}

/// Both families in one flag or setting, IPv4 first: it stays the primary one.
fn joined(v4: &str, v6: Option<&str>) -> String {
    v6.map_or_else(|| v4.to_owned(), |v6| format!("{v4},{v6}"))
}

/// Where a cluster's files lie on the machine. The names are fixed, so that `down` finds what a killed run left.
#[derive(Clone, Debug)]
pub struct Places {
    /// Descriptor and logs.
    pub run: PathBuf,
    /// What the members' private folders are made of: images, pods, states.
    pub data: PathBuf,
}

/// Holds the run folders of all clusters. A user who is not root (Docker needs no root) has folders of their own.
pub fn run_root() -> PathBuf {
    root_for("/run/kubectl-bookaccess", "run")
}

/// Holds the data of all clusters; on disk, as it is some hundred MB a node.
pub fn data_root() -> PathBuf {
    root_for("/var/tmp/kubectl-bookaccess", "data")
}

/// Holds what makes commands that work on the same cluster wait for each other.
pub fn lock_root() -> PathBuf {
    root_for("/run/lock", "locks")
}

fn root_for(of_root: &str, name: &str) -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from(of_root);
    }
    std::env::temp_dir().join(format!("kubectl-bookaccess-{}", user.as_raw())).join(name)
}

impl Places {
    pub fn new(name: &str) -> Self {
        Self { run: run_root().join(name), data: data_root().join(name) }
    }

    /// The file that says what runs where.
    pub fn descriptor(&self) -> PathBuf {
        self.run.join("cluster.json")
    }

    /// The log of one program.
    pub fn log(&self, member: &str, program: &str) -> PathBuf {
        self.run.join("logs").join(format!("{member}-{program}.log"))
    }

    /// A member's private data.
    pub fn member(&self, member: &str) -> PathBuf {
        self.data.join(member)
    }
}

/// A cluster's name becomes part of paths and of cgroup names.
pub fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 32
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-');
    if !good {
        bail!("cluster name {name:?}: only a-z, 0-9 and -, at most 32 of them, not beginning with -");
    }
    Ok(())
}

/// The minor version of a `vMAJOR.MINOR.PATCH`, and whether it is one this lab knows to run.
pub fn minor(version: &str) -> Result<u32> {
    let parts: Vec<_> = version.strip_prefix('v').unwrap_or_default().split('.').map(str::parse::<u32>).collect();
    match parts.as_slice() {
        [Ok(1), Ok(minor), Ok(_)] if *minor >= 30 => Ok(*minor),
        _ => bail!(
            "Kubernetes version {version:?}: write it as v1.37.2 (the default); the oldest that is tested is v1.34.4"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(workers: u8) -> Request {
        Request {
            name: "x".into(),
            version: "v1.37.2".into(),
            workers,
            proxy_mode: ProxyMode::Iptables,
            ec2: false,
            dual_stack: false,
            image: None,
        }
    }

    #[test]
    fn members_have_addresses_of_their_own() {
        let plan = Plan::new(request(2), 3);
        let shown: Vec<_> = plan.nodes.iter().map(|n| format!("{} {} {}", n.name, n.address, n.pod_cidr())).collect();
        assert_eq!(
            shown,
            ["cp1 172.30.3.10 10.244.0.0/24", "w1 172.30.3.11 10.244.1.0/24", "w2 172.30.3.12 10.244.2.0/24"]
        );
        assert!(plan.control_plane().control_plane && !plan.nodes[1].control_plane);
    }

    #[test]
    fn only_a_dual_stack_cluster_has_two_of_everything() {
        let one = Plan::new(request(1), 0);
        assert_eq!((one.pod_ranges().as_str(), one.service_ranges().as_str()), (POD_RANGE, SERVICE_RANGE));
        assert_eq!((one.nodes[1].node_ip().as_str(), one.nodes[1].pod_cidrs().len()), ("172.30.0.11", 1));

        let both = Plan::new(Request { dual_stack: true, ..request(1) }, 0);
        assert_eq!(both.pod_ranges(), "10.244.0.0/16,fd00:10:244::/56");
        assert_eq!(both.service_ranges(), "10.96.0.0/12,fd00:10:96::/112");
        assert_eq!(both.nodes[1].node_ip(), "172.30.0.11,fd30::11");
        assert_eq!(both.nodes[1].pod_cidrs(), ["10.244.1.0/24", "fd00:10:244:1::/64"]);
    }

    #[test]
    fn names_are_safe_in_paths() {
        for good in ["bookaccess", "a-1"] {
            check_name(good).unwrap();
        }
        for bad in ["", "..", "a/b", "A", "-x", "a b", &"a".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_are_written_in_full() {
        assert_eq!(minor("v1.37.2").unwrap(), 37);
        for bad in ["1.37.2", "v1.37", "v2.0.0", "v1.20.0", "vx"] {
            assert!(minor(bad).is_err(), "{bad}");
        }
    }
}
