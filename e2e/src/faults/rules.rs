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
            if !cluster.has_kube_proxy() {
                return Ok(());
            }
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

/// Old rules of a kube-proxy that used iptables-legacy lead the page's nodePort to an address that nobody has. The kernel
/// asks the table first that was made last.
pub fn legacy_on(node: &str) -> Fault {
    const RULES: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-EXT-BOOKACCESSE2E000 - [0:0]
:KUBE-SVC-BOOKACCESSE2E000 - [0:0]
:KUBE-SEP-BOOKACCESSE2E000 - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment \"bookinfo/productpage:http\" -m tcp --dport 30080 -j KUBE-EXT-BOOKACCESSE2E000
-A KUBE-EXT-BOOKACCESSE2E000 -j KUBE-SVC-BOOKACCESSE2E000
-A KUBE-SVC-BOOKACCESSE2E000 -m comment --comment \"bookinfo/productpage:http -> 10.244.0.250:9080\" -j KUBE-SEP-BOOKACCESSE2E000
-A KUBE-SEP-BOOKACCESSE2E000 -p tcp -m comment --comment \"bookinfo/productpage:http\" -m tcp -j DNAT --to-destination 10.244.0.250:9080
COMMIT
";
    let (node, healed) = (node.to_owned(), node.to_owned());
    Fault::new(
        format!("{node} has rules of iptables-legacy"),
        move |cluster| {
            let restore = ["iptables-legacy-restore", "--wait", "5", "--noflush"];
            place(cluster, &node)?.feed(&restore, RULES, Duration::from_secs(10))?.success().map(drop)
        },
        move |cluster| place(cluster, &healed)?.shell("iptables-legacy -t nat -F; iptables-legacy -t nat -X").map(drop),
    )
}

fn place<'c>(cluster: &'c Cluster, node: &str) -> Result<&'c Place> {
    let mut all = cluster.nodes.iter().map(|each| &each.place);
    all.find(|place| place.name == node).with_context(|| format!("no node {node}"))
}

fn flush(cluster: &Cluster, node: &str) -> Result<()> {
    if !cluster.has_kube_proxy() {
        return Ok(());
    }
    let place = place(cluster, node)?;
    let line = if cluster.proxy_mode == "nftables" {
        "nft flush map ip kube-proxy service-nodeports"
    } else {
        "iptables -w -t nat -F KUBE-NODEPORTS"
    };
    place.shell(line).map(drop)
}
