//! Rules of our own that lead the NodePort to our listener, around stale rules and REJECTs (Linux, root, the nft program).
//!
//! One table a forward, before kube-proxy's hooks. Everything in it acts through leases: elements that expire in three
//! seconds and are renewed each second, so that nothing acts once we are dead or stuck. Redirected packets reach the
//! listener's private port, which no rule of kube-proxy knows. Dials of an outsider probe are left alone on their way
//! to the NodePort, and rejected where they would reach our listener: a probe tells the truth about the NodePort.

use std::net::SocketAddrV4;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::observe::outsider::OUTSIDER_RANGE;
use crate::supervise::state::Position;

/// How long a lease lasts, and how often it is renewed.
pub const LEASE: Duration = Duration::from_secs(3);
/// See [`LEASE`].
pub const RENEWAL: Duration = Duration::from_secs(1);

/// All our tables have names that begin so.
pub const TABLE_PREFIX: &str = "bookaccess_";

/// One address that browsers dial, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The node's address and the nodePort.
    pub public: SocketAddrV4,
    /// The listener's private socket.
    pub private: SocketAddrV4,
}

/// The table of one forward.
#[derive(Debug, Clone)]
pub struct Front {
    table: String,
    ways: Vec<Way>,
    installed: bool,
}

/// What went wrong with the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the program nft is missing")]
    NoNft,
    #[error("nft: {0}")]
    Nft(String),
}

/// The table's name for a forward's id.
pub fn table_name(id: &str) -> String {
    let plain: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(200).collect();
    format!("{TABLE_PREFIX}{plain}")
}

impl Front {
    /// Nothing is written yet.
    pub fn new(id: &str, ways: Vec<Way>) -> Self {
        Self { table: table_name(id), ways, installed: false }
    }

    /// The address that a probe dials; none where there is nothing to be in front of.
    pub fn first(&self) -> Option<SocketAddrV4> {
        self.ways.first().map(|w| w.public)
    }

    /// Renews the leases for [`LEASE`]; makes the table first where it is not there.
    ///
    /// # Errors
    /// Where nft is missing or refuses.
    pub async fn renew(&mut self, position: Position) -> Result<(), Error> {
        if self.installed && nft(&self.leases(position)).await.is_ok() {
            return Ok(());
        }
        // The first time, or someone flushed the ruleset.
        self.installed = false;
        nft(&format!("{}{}", self.ruleset(), self.leases(position))).await?;
        self.installed = true;
        Ok(())
    }

    /// Lets connections that wait for an answer on the broken path begin anew: the kernel keeps the old destination
    /// of a SYN for its repetitions unless it is told to forget it. Best effort; kubeadm requires the program.
    pub async fn forget_unanswered(&self) {
        for Way { public, .. } in &self.ways {
            let (ip, port) = (public.ip().to_string(), public.port().to_string());
            let args = ["-D", "-p", "tcp", "--orig-dst", &ip, "--orig-port-dst", &port, "--state", "SYN_SENT"];
            let quiet = Command::new("conntrack").args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
            // It also fails where there was nothing to forget.
            if let Err(error) = quiet {
                tracing::info!(event = "no-conntrack", error = %error);
            }
        }
    }

    /// Takes the table away.
    ///
    /// # Errors
    /// Where nft refuses; without a table there is nothing to do.
    pub async fn remove(&mut self) -> Result<(), Error> {
        if !self.installed {
            return Ok(());
        }
        self.installed = false;
        remove_table(&self.table).await
    }

    /// The table with empty sets, in the place of any former one.
    fn ruleset(&self) -> String {
        let table = &self.table;
        // -110: before kube-proxy's dstnat (-100); its own filter in INPUT sits at 0 (iptables) or -110 (nftables).
        format!(
            "add table ip {table}
delete table ip {table}
table ip {table} {{
    map front {{
        type ipv4_addr . inet_service : ipv4_addr . inet_service
        flags timeout
    }}
    set shield {{
        type ipv4_addr . inet_service
        flags timeout
    }}
    chain prerouting {{
        type nat hook prerouting priority -110; policy accept;
        ip saddr {OUTSIDER_RANGE} return
        meta l4proto tcp dnat ip to ip daddr . tcp dport map @front
    }}
    chain output {{
        type nat hook output priority -110; policy accept;
        meta l4proto tcp dnat ip to ip daddr . tcp dport map @front
    }}
    chain input {{
        type filter hook input priority -120; policy accept;
        ip saddr {OUTSIDER_RANGE} ip daddr . tcp dport @shield reject with tcp reset
    }}
}}
"
        )
    }

    /// Renewal is to take everything out and put it back in, in one transaction: adding an element that is there does
    /// not renew it, and deleting one that has expired would fail.
    fn leases(&self, position: Position) -> String {
        let (table, seconds) = (&self.table, LEASE.as_secs());
        let mut script = format!("flush map ip {table} front\nflush set ip {table} shield\n");
        for Way { public, private } in &self.ways {
            let (ip, port) = (public.ip(), public.port());
            if position == Position::Front {
                script.push_str(&format!(
                    "add element ip {table} front {{ {ip} . {port} timeout {seconds}s : {} . {} }}\n",
                    private.ip(),
                    private.port()
                ));
            }
            for socket in [public, private] {
                let (ip, port) = (socket.ip(), socket.port());
                script.push_str(&format!("add element ip {table} shield {{ {ip} . {port} timeout {seconds}s }}\n"));
            }
        }
        script
    }
}

/// Our tables in this network namespace.
///
/// # Errors
/// Where nft is missing or refuses.
pub async fn tables() -> Result<Vec<String>, Error> {
    let listed = run(&["list", "tables", "ip"], "").await?;
    let names = listed.lines().filter_map(|line| line.strip_prefix("table ip "));
    Ok(names.filter(|name| name.starts_with(TABLE_PREFIX)).map(str::to_owned).collect())
}

/// Takes one table away.
///
/// # Errors
/// Where nft is missing or refuses.
pub async fn remove_table(table: &str) -> Result<(), Error> {
    // add makes delete succeed where the table is gone already.
    nft(&format!("add table ip {table}\ndelete table ip {table}\n")).await
}

async fn nft(script: &str) -> Result<(), Error> {
    run(&["-f", "-"], script).await.map(drop)
}

async fn run(args: &[&str], script: &str) -> Result<String, Error> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoNft,
        _ => Error::Nft(error.to_string()),
    };
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_name_that_nft_takes() {
        assert_eq!(table_name("bookinfo-productpage.v1-30080-3f9c"), "bookaccess_bookinfo_productpage_v1_30080_3f9c");
    }

    #[test]
    fn behind_only_the_shield_is_leased() {
        let way = Way { public: "10.0.0.1:30080".parse().unwrap(), private: "10.0.0.1:40000".parse().unwrap() };
        let front = Front::new("x", vec![way]);
        let behind = front.leases(Position::Behind);
        assert!(!behind.contains(" : "), "{behind}");
        assert_eq!(behind.matches("shield { 10.0.0.1 . ").count(), 2);
        let in_front = front.leases(Position::Front);
        assert!(in_front.contains("front { 10.0.0.1 . 30080 timeout 3s : 10.0.0.1 . 40000 }"), "{in_front}");
    }
}
