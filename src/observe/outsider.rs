//! The outsider probe: a dial that enters this node as a stranger's packet does.
//!
//! A network namespace of its own, joined to the node by a veth pair. Its packets pass PREROUTING, FORWARD and INPUT,
//! where a dial from the node itself would pass OUTPUT and prove less. The namespace is held by a child process whose
//! stdin we keep: it ends when we end, however we end, and the namespace and the veth pair go with it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::LinkNameSpaceType;

/// Source range of all outsider probes: RFC 2544's benchmark range, which no client of a real network uses.
/// Our own rules and our own listener leave it alone, so that a probe tells the truth about the NodePort.
pub const OUTSIDER_RANGE: &str = "198.18.0.0/15";

/// Whether an address is that of an outsider probe.
pub fn is_outsider(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some_and(|ip| is_outsider(IpAddr::V4(ip))),
    }
}

/// A namespace that is there while this value lives.
pub struct Outsider {
    holder: Child,
    namespace: std::fs::File,
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
        let outsider = Self { namespace: std::fs::File::open(&path)?, holder };
        // One /30 of the range for each process, so that a standby and a fix can probe side by side.
        let block = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (pid % 32_768) * 4;
        let (node_side, inside) = (Ipv4Addr::from(block + 1), Ipv4Addr::from(block + 2));
        let link = format!("ba{pid}");
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()])?;
        run("ip", &["addr", "add", &format!("{node_side}/30"), "dev", &link])?;
        run("ip", &["link", "set", &link, "up"])?;
        let enter = format!("--net={path}");
        run("nsenter", &[&enter, "ip", "addr", "add", &format!("{inside}/30"), "dev", "eth0"])?;
        run("nsenter", &[&enter, "ip", "link", "set", "eth0", "up"])?;
        run("nsenter", &[&enter, "ip", "route", "add", "default", "via", &node_side.to_string()])?;
        Ok(outsider)
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

/// Runs a program of iproute2 or util-linux; its stderr is the error.
fn run(program: &str, args: &[&str]) -> std::io::Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!("{program} {}: {}", args.join(" "), said.trim())))
}
