//! The IPv6 half of a dual-stack cluster: its ranges, and the addresses in them. Pure.

use std::net::Ipv6Addr;

/// What the external client dials by IPv6; the gateway translates it 1:1 to the control plane (RFC 3849's range).
pub const PUBLIC_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
/// The external client's own address and its way out.
pub const CLIENT_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 2);
/// The gateway's address on the client's side.
pub const CLIENT_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 1);
/// A /64 for each node, which is what the controller-manager hands out when no mask is given.
pub const POD_RANGE_V6: &str = "fd00:10:244::/56";
/// The second range of Services; the API server takes no larger one than a /108.
pub const SERVICE_RANGE_V6: &str = "fd00:10:96::/112";

/// What a node has besides its IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeV6 {
    pub address: Ipv6Addr,
    /// First address of the node's pod network; the network is a /64.
    pub pods: Ipv6Addr,
}

impl NodeV6 {
    /// The node of this number in the cluster of this generation.
    pub fn new(generation: u8, index: u8) -> Self {
        Self {
            address: in_node_range(generation, 0x10 + u16::from(index)),
            pods: Ipv6Addr::new(0xfd00, 0x10, 0x244, index.into(), 0, 0, 0, 0),
        }
    }

    /// The node's pod network.
    pub fn pod_cidr(&self) -> String {
        format!("{}/64", self.pods)
    }
}

/// The nodes' way out.
pub fn gateway(generation: u8) -> Ipv6Addr {
    in_node_range(generation, 1)
}

/// The nodes' network: a /64 of its own for each generation, as with IPv4.
pub fn node_range(generation: u8) -> String {
    format!("{}/64", in_node_range(generation, 0))
}

fn in_node_range(generation: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd30, 0, 0, generation.into(), 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_and_nodes_have_networks_of_their_own() {
        let seen = |generation, index| {
            let node = NodeV6::new(generation, index);
            format!("{} {}", node.address, node.pod_cidr())
        };
        assert_eq!(seen(0, 0), "fd30::10 fd00:10:244::/64");
        assert_eq!(seen(3, 50), "fd30:0:0:3::42 fd00:10:244:32::/64");
        assert_eq!((gateway(0).to_string(), node_range(0)), ("fd30::1".to_owned(), "fd30::/64".to_owned()));
        assert_eq!(node_range(255), "fd30:0:0:ff::/64");
    }
}
