//! Whether a node's own address lies in the pod network of a node: looked for once, for all targets.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;

use super::node;
use crate::model::Snapshot;
use crate::model::pod::Pod;

/// A pod network, and the node whose address lies in it.
pub struct Overlap<'a> {
    pub owner: &'a Node,
    pub cidr: &'a str,
    pub other: &'a Node,
    pub ip: &'a str,
}

/// First and last address.
type Range = (IpAddr, IpAddr);

/// The first overlap by the names of the nodes. A CNI with an allocator of its own leaves these ranges unused, and then
/// nothing overlaps.
pub fn overlap(snapshot: &Snapshot) -> Option<Overlap<'_>> {
    let mut nodes: Vec<&Node> = snapshot.objects.nodes.iter().collect();
    nodes.sort_by_key(|n| node::name(n));
    let own = |n: usize| node::internal_ips(nodes[n]).into_iter().enumerate().map(move |(i, ip)| (ip, n, i));
    let held = (0..nodes.len()).flat_map(own).filter_map(|(ip, n, i)| Some((ip.parse::<IpAddr>().ok()?, n, i, ip)));
    let mut held: Vec<(IpAddr, usize, usize, &str)> = held.collect();
    held.sort_unstable();
    let networks = || nodes.iter().flat_map(|n| node::pod_cidrs(n).into_iter().map(|cidr| (*n, cidr)));
    let found = networks().find_map(|(owner, cidr)| {
        let (first, last) = range(cidr)?;
        let from = held.partition_point(|(ip, ..)| *ip < first);
        let inside = held[from..].iter().take_while(|(ip, ..)| *ip <= last);
        let (_, other, _, ip) = inside.min_by_key(|(_, n, i, _)| (*n, *i))?;
        Some(Overlap { owner, cidr, other: nodes[*other], ip })
    })?;
    let mut used: Vec<Range> = networks().filter_map(|(_, cidr)| range(cidr)).collect();
    used.sort_unstable();
    used.dedup_by(|next, kept| {
        let within = next.0 <= kept.1;
        kept.1 = if within { kept.1.max(next.1) } else { kept.1 };
        within
    });
    let in_use = |ip: IpAddr| {
        let behind = used.partition_point(|(first, _)| *first <= ip);
        behind.checked_sub(1).is_some_and(|at| ip <= used[at].1)
    };
    snapshot.objects.pods.iter().filter_map(address).any(in_use).then_some(found)
}

/// The address that a pod has of its own.
fn address(pod: &Pod) -> Option<IpAddr> {
    let of_node = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    pod.status.as_ref().filter(|_| !of_node)?.pod_ip.as_deref()?.parse().ok()
}

/// The addresses of a network written as CIDR.
fn range(cidr: &str) -> Option<Range> {
    let (network, length) = cidr.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match network.parse().ok()? {
        IpAddr::V4(ip) => {
            let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = u32::from(ip) & !hosts;
            (length <= 32).then_some((IpAddr::from(first.to_be_bytes()), IpAddr::from((first | hosts).to_be_bytes())))
        }
        IpAddr::V6(ip) => {
            let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
            let first = u128::from(ip) & !hosts;
            (length <= 128).then_some((IpAddr::from(first.to_be_bytes()), IpAddr::from((first | hosts).to_be_bytes())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_s_range_is_what_it_contains() {
        for cidr in ["10.244.1.0/24", "10.244.1.7/30", "0.0.0.0/0", "10.0.0.1/32", "fd00:1::/64", "10.0.0.0/33", "x/8"]
        {
            for ip in ["10.244.1.7", "10.244.1.4", "10.244.2.0", "10.0.0.1", "fd00:1::9", "fd00:2::", "::"] {
                let ip: IpAddr = ip.parse().unwrap_or(IpAddr::from([0; 4]));
                let inside = range(cidr).is_some_and(|(first, last)| first <= ip && ip <= last);
                assert_eq!(inside, node::cidr_contains(cidr, ip), "{ip} in {cidr}");
            }
        }
    }
}
