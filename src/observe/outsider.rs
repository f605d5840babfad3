//! The outsider probe: a dial that enters this node as a stranger's packet does.
//!
//! A network namespace of its own, joined to the node by a veth pair. Its packets pass PREROUTING, FORWARD and INPUT,
//! where a dial from the node itself would pass OUTPUT and prove less. The namespace is held by a child process whose
//! stdin we keep: it ends when we end, however we end, and the namespace and the veth pair go with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::thread::LinkNameSpaceType;

/// Source range of all outsider probes: RFC 2544's benchmark range, which no client of a real network uses.
/// Our own rules and our own listener leave it alone, so that a probe tells the truth about the NodePort.
pub const OUTSIDER_RANGE: &str = "198.18.0.0/15";
/// The same for IPv6: RFC 5180's.
pub const OUTSIDER_RANGE_V6: &str = "2001:2::/48";

/// Whether an address is that of an outsider probe.
pub fn is_outsider(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18,
        IpAddr::V6(ip) => {
            ip.segments()[..3] == [0x2001, 2, 0] || ip.to_ipv4_mapped().is_some_and(|ip| is_outsider(IpAddr::V4(ip)))
        }
    }
}

/// The addresses of one family on the link between the node and the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The node's end.
    pub gate: IpAddr,
    /// What dials from inside come from: a stranger, whom no rule of ours serves.
    pub stranger: IpAddr,
    /// A second address inside, for a probe that our own rules shall serve.
    pub prover: IpAddr,
}

/// A namespace that is there while this value lives.
pub struct Outsider {
    holder: Child,
    namespace: std::fs::File,
    v4: Link,
    /// None where the node has no IPv6.
    v6: Option<Link>,
}

impl Outsider {
    /// Makes the namespace; takes some 20 ms. Needs root and the programs `unshare`, `nsenter` and `ip`.
    ///
    /// # Errors
    /// In the words of the program that failed.
    pub fn open() -> std::io::Result<Self> {
        let holder = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = holder.id();
        let path = format!("/proc/{pid}/ns/net");
        // From here on dropping `outsider` ends the holder.
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while std::fs::read_link(&path).is_ok_and(|ns| ns == own) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        // One block of the range for each process, so that a standby and a fix can probe side by side.
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (pid % 16_384) * 8;
        let v4 = |host| IpAddr::V4(Ipv4Addr::from(block + host));
        let network = u128::from(Ipv6Addr::new(0x2001, 2, 0, u16::try_from(pid % 65_536).unwrap_or(0), 0, 0, 0, 0));
        let v6 = |host| IpAddr::V6(Ipv6Addr::from(network + host));
        let mut outsider = Self {
            namespace: std::fs::File::open(&path)?,
            holder,
            v4: Link { gate: v4(1), stranger: v4(2), prover: v4(3) },
            v6: None,
        };
        let link = format!("ba{pid}");
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()])?;
        run("ip", &["link", "set", &link, "up"])?;
        let enter = format!("--net={path}");
        run("nsenter", &[&enter, "ip", "link", "set", "eth0", "up"])?;
        address(&enter, &link, outsider.v4, 29)?;
        let sixth = Link { gate: v6(1), stranger: v6(2), prover: v6(3) };
        if address(&enter, &link, sixth, 64).is_ok() {
            outsider.v6 = Some(sixth);
        }
        Ok(outsider)
    }

    /// The addresses of the family that `like` has; none where the node has no IPv6.
    pub fn link(&self, like: IpAddr) -> Option<Link> {
        if like.is_ipv4() { Some(self.v4) } else { self.v6 }
    }

    /// A TCP socket of the namespace with this source address, not yet connected and not blocking. It stays in the
    /// namespace whoever uses it.
    ///
    /// # Errors
    /// Of the system.
    pub fn socket(&self, source: IpAddr) -> std::io::Result<TcpStream> {
        let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        self.inside(|| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            bind(&socket, &SocketAddr::new(source, 0))?;
            Ok(TcpStream::from(socket))
        })?
    }

    /// Runs `dial` in a thread inside the namespace and waits for it. `dial` must block, not await: a task of an
    /// async runtime could move to a thread that is not inside.
    pub fn inside<T: Send>(&self, dial: impl FnOnce() -> T + Send) -> std::io::Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    rustix::thread::move_into_link_name_space(
                        self.namespace.as_fd(),
                        Some(LinkNameSpaceType::Network),
                    )?;
                    Ok(dial())
                })
                .join()
                .unwrap_or_else(|_| Err(std::io::Error::other("the probe's thread panicked")))
        })
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Gives both ends of the link their addresses of one family.
fn address(enter: &str, link: &str, of: Link, prefix: u8) -> std::io::Result<()> {
    // nodad: an address that waits for an echo of itself cannot be used for a second.
    let nodad: &[&str] = if of.gate.is_ipv6() { &["nodad"] } else { &[] };
    let ip = |ip: IpAddr| format!("{ip}/{prefix}");
    run("ip", &[&["addr", "add", &ip(of.gate), "dev", link], nodad].concat())?;
    for inside in [of.stranger, of.prover] {
        run("nsenter", &[&[enter, "ip", "addr", "add", &ip(inside), "dev", "eth0"], nodad].concat())?;
    }
    let version = if of.gate.is_ipv4() { "-4" } else { "-6" };
    let (gate, source) = (of.gate.to_string(), of.stranger.to_string());
    run("nsenter", &[enter, "ip", version, "route", "add", "default", "via", &gate, "dev", "eth0", "src", &source])
}

/// Runs a program of iproute2 or util-linux; its stderr is the error.
fn run(program: &str, args: &[&str]) -> std::io::Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!("{program} {}: {}", args.join(" "), said.trim())))
}
