//! The NodePort rules of one node flushed under a live kube-proxy, as a firewall reload does it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, Place};
use crate::condition::until;
use crate::faults::{Fault, kube_proxy};

pub fn flushed_on(node: &str) -> Fault {
    let (node, healed) = (node.to_owned(), node.to_owned());
    Fault::new(
        format!("the NodePort rules of {node} are flushed"),
        move |cluster| flush(cluster, &node),
        move |cluster| kube_proxy::restart_on(cluster, &healed),
    )
}

/// As [`flushed_on`], and they stay away: what is still on its way to kube-proxy has arrived.
pub fn flushed_for_good_on(node: &str) -> Fault {
    let fault = flushed_on(node);
    let node = node.to_owned();
    Fault::new(
        fault.name,
        move |cluster| {
            until("the rules stay away", Duration::from_secs(30), || {
                flush(cluster, &node)?;
                // kube-proxy writes its rules at most once a second.
                std::thread::sleep(Duration::from_millis(1500));
                let line = if cluster.proxy_mode == "nftables" {
                    "nft list map ip kube-proxy service-nodeports | grep goto || true"
                } else {
                    "iptables -w -t nat -S KUBE-NODEPORTS | grep -e '^-A' || true"
                };
                let back = place(cluster, &node)?.shell(line)?;
                ensure!(back.is_empty(), "{back}");
                Ok(())
            })
        },
        fault.heal,
    )
}

fn place<'c>(cluster: &'c Cluster, node: &str) -> Result<&'c Place> {
    let mut all = cluster.nodes.iter().map(|each| &each.place);
    all.find(|place| place.name == node).with_context(|| format!("no node {node}"))
}

fn flush(cluster: &Cluster, node: &str) -> Result<()> {
    let place = place(cluster, node)?;
    let line = if cluster.proxy_mode == "nftables" {
        "nft flush map ip kube-proxy service-nodeports"
    } else {
        "iptables -w -t nat -F KUBE-NODEPORTS"
    };
    place.shell(line).map(drop)
}
