//! A second network card: requests come in by it and answers leave by the first, as with two subnets of one machine. The
//! kernel's strict reverse path filter takes that for forged.

use std::time::Duration;

use anyhow::Result;

use crate::app::PORT;
use crate::cluster::{Cluster, Place};
use crate::faults::Fault;

/// The second card's address.
pub const ADDRESS: &str = "172.31.0.10";
const GATE: &str = "172.31.0.1";
const LINK: &str = "second";
const CARD: &str = "eth1";

/// The control plane gets one, the browser's requests are led to it, and rp_filter is 1.
pub fn strict() -> Fault {
    Fault::new("rp_filter is strict on a second card", |cluster: &Cluster| join(cluster), part)
}

fn join(cluster: &Cluster) -> Result<()> {
    let node = &cluster.control_plane()?.place;
    let (gateway, public) = (&cluster.gateway, &cluster.public_address);
    let ends = (gateway.process()?, node.process()?);
    let here = Place { name: "this machine".to_owned(), enter: Vec::new() };
    // Both ends are made where they belong.
    here.shell(&format!("ip link add name {LINK} netns {} type veth peer name {CARD} netns {}", ends.0, ends.1))?;
    gateway.shell(&format!("ip address add {GATE}/24 dev {LINK}; ip link set {LINK} up"))?;
    node.shell(&format!(
        "ip address add {ADDRESS}/24 dev {CARD}; echo 1 > /proc/sys/net/ipv4/conf/{CARD}/rp_filter; ip link set {CARD} up"
    ))?;
    // Before the gateway's own translation of the public address.
    let lead = format!("ip daddr {public} tcp dport {PORT} dnat to {ADDRESS}");
    let chain = format!("chain prerouting {{ type nat hook prerouting priority -110; {lead}; }};");
    gateway.shell(&format!("nft 'table ip e2e_second {{ {chain} }}'")).map(drop)
}

fn part(cluster: &Cluster) -> Result<()> {
    let table = "table ip e2e_second";
    cluster.gateway.shell(&format!("nft '{table}; delete {table};'; ip link del {LINK} 2>/dev/null || true"))?;
    // What conntrack remembers of it would lead the browser there for a while.
    cluster.gateway.run(&["conntrack", "-F"], Duration::from_secs(10)).map(drop)
}
