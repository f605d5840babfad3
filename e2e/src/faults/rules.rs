//! The NodePort rules of one node flushed under a live kube-proxy, as a firewall reload does it.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::faults::{Fault, kube_proxy};

pub fn flushed_on(node: &str) -> Fault {
    let (node, healed) = (node.to_owned(), node.to_owned());
    Fault::new(
        format!("the NodePort rules of {node} are flushed"),
        move |cluster| flush(cluster, &node),
        move |cluster| kube_proxy::restart_on(cluster, &healed),
    )
}

fn flush(cluster: &Cluster, node: &str) -> Result<()> {
    let place = cluster.nodes.iter().map(|each| &each.place).find(|place| place.name == node);
    let place = place.ok_or_else(|| anyhow::anyhow!("no node {node}"))?;
    let line = if cluster.proxy_mode == "nftables" {
        "nft flush map ip kube-proxy service-nodeports"
    } else {
        "iptables -w -t nat -F KUBE-NODEPORTS"
    };
    place.shell(line).map(drop)
}
