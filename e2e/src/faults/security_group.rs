//! Packets to one port are dropped on the way to the public address, as a cloud's security group does.

use crate::cluster::Cluster;
use crate::faults::Fault;

const TABLE: &str = "e2e_security_group";

/// Drops TCP to this port of the public address, before the address is translated.
pub fn drops(port: u16) -> Fault {
    Fault::new(
        format!("the security group drops {port}/tcp"),
        move |cluster: &Cluster| {
            let line = format!(
                "nft 'table inet {TABLE} {{ chain in {{ type filter hook prerouting priority -350; \
                 ip daddr {} tcp dport {port} drop; }}; }}'",
                cluster.public_address
            );
            cluster.gateway.shell(&line).map(drop)
        },
        |cluster: &Cluster| {
            // Declared first, so that deleting succeeds also where it is absent.
            let line = format!("nft 'table inet {TABLE}; delete table inet {TABLE};'");
            cluster.gateway.shell(&line).map(drop)
        },
    )
}
