//! A node no longer knows the way to another node's pods.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Node};
use crate::faults::Fault;

/// `from` loses its route to the pods of `to`.
pub fn gone(from: &Node, to: &Node) -> Fault {
    let (place, cidr, address) = (from.place.clone(), to.pod_cidr.clone(), to.address.clone());
    let (healed, back) = (place.clone(), format!("ip route replace {cidr} via {address}"));
    Fault::new(
        format!("{} has no route to the pods of {}", from.place.name, to.place.name),
        move |_: &Cluster| remove(&place, &cidr),
        move |_: &Cluster| healed.shell(&back).map(drop),
    )
}

fn remove(place: &crate::cluster::Place, cidr: &str) -> Result<()> {
    place.shell(&format!("ip route del {cidr}")).map(drop).context("is it a static route?")
}
