//! What the applications in this node's pods listen on, as the kernel tells root.
//!
//! Through the API an application that listens on loopback alone, on IPv6 alone or on another port looks the same.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use kube::ResourceExt;

use crate::facts::pod;
use crate::model::pod::Pod;
use crate::model::{Outcome, Snapshot, Vantage};

/// A pod of this node that refused a moment ago does so again at once.
const AGAIN: Duration = Duration::from_millis(500);

/// A pod of this node that refused a probe.
pub struct Refusing {
    uid: String,
    /// `namespace/name`.
    pod: String,
    /// Where it refused this node.
    at: Vec<SocketAddr>,
}

/// This node's pods that refused a probe. Those on the host's network are left out, whose sockets are the node's.
pub fn refusing(snapshot: &Snapshot) -> Vec<Refusing> {
    let refused: Vec<_> = snapshot.probes.iter().filter(|p| p.outcome == Outcome::Refused).collect();
    let here = snapshot.stand.node.as_deref();
    let on_host = |p: &Pod| p.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let local = snapshot.objects.pods.iter().filter(|p| here.is_some() && pod::node(p) == here && !on_host(p));
    let refusing = local.filter_map(|sick| {
        let mut by_it = refused.iter().filter(|p| p.pod.as_deref() == Some(pod::name(sick))).peekable();
        by_it.peek()?;
        let dialled = by_it.filter(|p| p.vantage == Vantage::NodeToPod);
        let at = dialled.filter_map(|p| Some(SocketAddr::new(p.host.parse().ok()?, p.port))).collect();
        Some(Refusing { uid: sick.uid()?, pod: format!("{}/{}", sick.namespace()?, sick.name_any()), at })
    });
    refusing.collect()
}

/// What those pods listen on, by `namespace/name`. A pod whose processes are not found is left out, and one that has begun
/// to listen since it refused: its sockets are not those that did.
pub fn read(pods: &[Refusing]) -> BTreeMap<String, Vec<SocketAddr>> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(groups) = fs::read_to_string(process.path().join("cgroup")) else { continue };
        let Some(Refusing { pod, .. }) = pods.iter().find(|p| is_of_pod(&groups, &p.uid)) else { continue };
        let table = |name: &str| fs::read_to_string(process.path().join("net").join(name));
        if let (false, Ok(v4)) = (found.contains_key(pod), table("tcp")) {
            // Where IPv6 is off, its table is not there.
            let v6 = table("tcp6").unwrap_or_default();
            found.insert(pod.clone(), listening(&v4).chain(listening(&v6)).collect());
        }
    }
    let listens = |at: &SocketAddr| TcpStream::connect_timeout(at, AGAIN).is_ok();
    for begun in pods.iter().filter(|p| p.at.iter().any(listens)) {
        found.remove(&begun.pod);
    }
    found
}

/// Whether `/proc/PID/cgroup` names the pod. systemd writes the uid with underscores.
fn is_of_pod(groups: &str, uid: &str) -> bool {
    groups.contains(&format!("pod{uid}")) || groups.contains(&format!("pod{}", uid.replace('-', "_")))
}

/// The local addresses of sockets in state LISTEN: `/proc/net/tcp` and `tcp6`, see proc(5). An address is printed as
/// 32-bit words of the machine's byte order.
fn listening(table: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, port) = local.split_once(':')?;
        let words: Vec<u32> = (0..address.len() / 8)
            .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok())
            .collect::<Option<_>>()?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let ip: IpAddr = match bytes.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
            16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
            _ => return None,
        };
        (state == LISTEN).then_some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
    })
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn listening_sockets_are_read_and_others_are_not() {
        for (line, expected) in [
            ("   0: 00000000:2378 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1", Some("0.0.0.0:9080")),
            (
                "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1",
                Some("127.0.0.1:8080"),
            ),
            ("   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000 0 0 1", None),
            (
                "   0: 00000000000000000000000000000000:2378 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1",
                Some("[::]:9080"),
            ),
            (
                "   0: 00000000000000000000000001000000:2378 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1",
                Some("[::1]:9080"),
            ),
            ("   0: nonsense", None),
        ] {
            let read: Vec<String> = listening(&format!("{HEAD}{line}\n")).map(|s| s.to_string()).collect();
            assert_eq!(read, expected.into_iter().collect::<Vec<_>>(), "{line}");
        }
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        assert!(listening(&table).any(|socket| socket == own));
    }

    #[test]
    fn a_pod_is_found_by_either_way_of_writing_its_uid() {
        let uid = "0b9c2f7e-1d3a-4c55-9e0f-6a7b8c9d0e1f";
        for (groups, expected) in [
            ("0::/kubepods/besteffort/pod0b9c2f7e-1d3a-4c55-9e0f-6a7b8c9d0e1f/3f", true),
            ("0::/kubepods.slice/kubepods-pod0b9c2f7e_1d3a_4c55_9e0f_6a7b8c9d0e1f.slice/cri-3f.scope", true),
            ("0::/system.slice/kubelet.service", false),
        ] {
            assert_eq!(is_of_pod(groups, uid), expected, "{groups}");
        }
    }
}
