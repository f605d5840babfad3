//! The test network of a cluster in containers: two networks of Docker's, the nodes' and the external client's, and a gateway
//! between them with the same translation as that of provider `native`.
//!
//! The client is a container that is no node. Whatever a node or the client sends to elsewhere goes to the gateway, which
//! refuses it: no packet of a cluster leaves the machine, also where the daemon is the user's.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use super::{Client, Docker};
use crate::provider::native::net::{CLIENTS, OUTSIDE, gateway_rules};

/// Marks networks as ours, with the cluster's name.
pub const LABEL: &str = "kubectl-bookaccess.cluster";
/// What Docker and podman say where two networks would share addresses.
const OVERLAPS: [&str; 2] = ["overlaps", "is already used on the host"];

/// A /24 of the nodes (172.30.N.0/24) or a /28 of the client (in TEST-NET-2, RFC 5737). Docker's own bridge has the last
/// address; the first is the gateway's, as the members' way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: Ipv4Addr,
    bits: u8,
}

impl Range {
    pub fn nodes(generation: u8) -> Self {
        Self { base: Ipv4Addr::new(172, 30, generation, 0), bits: 24 }
    }

    fn client(slot: u8) -> Self {
        Self { base: Ipv4Addr::new(198, 51, 100, slot * 16), bits: 28 }
    }

    fn at(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + index)
    }

    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    pub fn first_member(self) -> Ipv4Addr {
        self.at(2)
    }

    fn docker(self) -> Ipv4Addr {
        self.at((1 << (32 - u32::from(self.bits))) - 2)
    }

    pub fn cidr(self) -> String {
        format!("{}/{}", self.base, self.bits)
    }
}

/// The nodes' network.
pub fn nodes_network(cluster: &str) -> String {
    format!("bookaccess-{cluster}")
}

/// The client's network.
pub fn clients_network(cluster: &str) -> String {
    format!("bookaccess-{cluster}-clients")
}

/// The gateway's container.
pub fn gateway(cluster: &str) -> String {
    format!("{cluster}-gateway")
}

/// The external client's container.
pub fn client(cluster: &str) -> String {
    format!("{cluster}-client")
}

/// Makes the nodes' network in the first range that is free, beginning with `first`, and says which one that was.
pub fn make_nodes_network(docker: &Docker, cluster: &str, first: u8) -> Result<u8> {
    let tried = (0..=u8::MAX).map(|more| first.wrapping_add(more));
    make_first_free(docker, cluster, &nodes_network(cluster), tried.map(|number| (number, Range::nodes(number))))
}

/// As [`make_nodes_network`], for the client's.
fn make_clients_network(docker: &Docker, cluster: &str) -> Result<Range> {
    let slots = (0..16).map(|slot| (Range::client(slot), Range::client(slot)));
    make_first_free(docker, cluster, &clients_network(cluster), slots)
}

fn make_first_free<T>(
    docker: &Docker,
    cluster: &str,
    network: &str,
    ranges: impl Iterator<Item = (T, Range)>,
) -> Result<T> {
    let label = format!("{LABEL}={cluster}");
    for (found, range) in ranges {
        let (subnet, bridge) = (range.cidr(), range.docker().to_string());
        let mut words = vec!["network", "create", "--subnet", &subnet, "--gateway", &bridge, "--label", &label];
        // podman hides the senders of all that a network sends elsewhere, of bridged packets too where the kernel shows
        // them to the rules; it does not with a network that has no way out.
        words.extend(Some("--internal").filter(|_| docker.client == Client::Podman));
        words.push(network);
        match docker.run(&words) {
            Ok(_) => return Ok(found),
            Err(error) if OVERLAPS.iter().any(|words| format!("{error:#}").contains(words)) => {}
            Err(error) => return Err(error),
        }
    }
    bail!(
        "every range of addresses for {network} is taken by another network: {client} network ls shows them, {client} network rm removes one",
        client = docker.client.name(),
    )
}

/// Starts the client, with a network of its own, unless one was kept, and gives its range.
pub fn ensure_client(docker: &Docker, cluster: &str, image: &str, shared: &str) -> Result<Range> {
    if let Some(range) = range_of_client(docker, cluster)? {
        return Ok(range);
    }
    let range = make_clients_network(docker, cluster)?;
    let (network, name) = (clients_network(cluster), client(cluster));
    let (address, mount) = (range.first_member().to_string(), format!("{shared}:{shared}:ro"));
    let mut words = vec!["--network", &network, "--ip", &address, "--hostname", "client", "--volume", &mount];
    words.extend(["--tmpfs", "/run:exec"]);
    run_member(docker, &name, &words, image)?;
    docker.exec(&name, &["ip", "route", "replace", "default", "via", &range.gateway().to_string()])?;
    Ok(range)
}

/// The range of the client that runs.
fn range_of_client(docker: &Docker, cluster: &str) -> Result<Option<Range>> {
    let network = clients_network(cluster);
    let format = format!("{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.IPAddress}}}}{{{{end}}}}");
    let Ok(said) = docker.run(&["inspect", "--format", &format, &client(cluster)]) else { return Ok(None) };
    let address: Ipv4Addr = said.trim().parse()?;
    Ok((0..16).map(Range::client).find(|range| range.first_member() == address))
}

/// Starts the gateway, on both networks. It must come before the nodes: Docker hands out the first address that is free.
pub fn start_gateway(docker: &Docker, cluster: &str, image: &str, generation: u8, client: Range) -> Result<()> {
    let (network, name) = (nodes_network(cluster), gateway(cluster));
    let address = Range::nodes(generation).gateway().to_string();
    let mut words = vec!["--network", &network, "--ip", &address, "--hostname", "gateway"];
    // "No route" is said to everybody and at once, as on the gateway of a native cluster.
    for setting in ["net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0", "net.ipv4.conf.all.send_redirects=0"] {
        words.extend(["--sysctl", setting]);
    }
    run_member(docker, &name, &words, image)?;
    docker.run(&["network", "connect", "--ip", &client.gateway().to_string(), &clients_network(cluster), &name])?;
    // Docker names a second link by its number; the rules know it by what it leads to.
    let find = format!("ip -o -4 address show to {}/32 | cut -d ' ' -f 2", client.gateway());
    let link = docker.exec(&name, &["sh", "-ec", &find])?;
    let lines = format!(
        "link set {link} down\nlink set {link} name {CLIENTS}\nlink set {CLIENTS} up\n\
         link add {OUTSIDE} type bridge\nlink set {OUTSIDE} up\nroute replace default dev {OUTSIDE}\n",
        link = link.trim()
    );
    docker.feed(&name, &["ip", "-batch", "-"], &lines).map(drop)
}

/// A container that is no node: its first process waits, and takes up what is left to it.
fn run_member(docker: &Docker, name: &str, words: &[&str], image: &str) -> Result<()> {
    let mut args = vec!["run", "--detach", "--name", name, "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    args.extend(words);
    args.extend(["--entrypoint", "bash", image, "-c", "sleep infinity & wait"]);
    docker.run(&args).map(drop)
}

/// What the public address leads to: the gateway's rules, once the control plane's address is known.
pub fn translate(docker: &Docker, cluster: &str, generation: u8, control_plane: Ipv4Addr) -> Result<()> {
    let rules = gateway_rules(control_plane, &Range::nodes(generation).cidr());
    docker.feed(&gateway(cluster), &["nft", "-f", "-"], &rules).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    #[test]
    fn a_range_that_another_network_has_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let taken = "case \"$*\" in *172.30.[78].0/24*) \
            echo 'Error response from daemon: Pool overlaps with other one on this address space' >&2; exit 1;; \
            *172.30.9.0/24*) echo 'Error: subnet 172.30.9.0/24 is already used on the host' >&2; exit 1;; esac";
        let docker = fake::docker(folder.path(), taken);
        assert_eq!(make_nodes_network(&docker, "a", 7).unwrap(), 10);
        let full = "echo 'invalid pool request: Pool overlaps with other one on this address space' >&2; exit 1";
        let said = make_clients_network(&fake::docker(folder.path(), full), "a").unwrap_err().to_string();
        assert!(said.contains("bookaccess-a-clients is taken by another network"), "{said}");
    }

    #[test]
    fn ranges_have_the_gateway_first_and_dockers_bridge_last() {
        let nodes = Range::nodes(3);
        assert_eq!((nodes.cidr().as_str(), nodes.gateway().to_string().as_str()), ("172.30.3.0/24", "172.30.3.1"));
        assert_eq!(nodes.docker(), Ipv4Addr::new(172, 30, 3, 254));
        let client = Range::client(15);
        assert_eq!(client.cidr(), "198.51.100.240/28");
        assert_eq!(
            [client.gateway(), client.first_member(), client.docker()].map(|address| address.octets()[3]),
            [241, 242, 254]
        );
    }
}
