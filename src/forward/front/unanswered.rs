//! Connections that wait for an answer on a broken path begin anew: the kernel keeps the old destination of a SYN for its
//! repetitions unless it is told to forget it. Best effort, by conntrack(8), which kubeadm requires.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Whose SYN was answered within this time waits for nothing. To forget a connection that is just being made would cut it
/// off: it would be open, and nobody would ever answer it.
const ANSWERED: Duration = Duration::from_millis(200);
/// More than these are forgotten all at once: each by itself would take longer than their patience.
const FEW: usize = 32;

/// Forgets those that wait at these addresses.
pub async fn forget(publics: Vec<SocketAddr>) {
    for public in publics {
        let before = waiting(public).await;
        if before.is_empty() {
            continue;
        }
        tokio::time::sleep(ANSWERED).await;
        let now = waiting(public).await;
        let stuck: Vec<&SocketAddr> = before.intersection(&now).collect();
        if stuck.len() > FEW {
            conntrack("-D", public, None).await;
            continue;
        }
        for client in stuck {
            conntrack("-D", public, Some(client)).await;
        }
    }
}

/// The clients whose SYN to this address was not answered yet.
async fn waiting(public: SocketAddr) -> BTreeSet<SocketAddr> {
    conntrack("-L", public, None).await.lines().filter_map(client).collect()
}

/// What the program prints of a verb for the unanswered connections to an address; with `client` of that one alone.
async fn conntrack(verb: &str, public: SocketAddr, client: Option<&SocketAddr>) -> String {
    let family = if public.is_ipv4() { "ipv4" } else { "ipv6" };
    let (ip, port) = (public.ip().to_string(), public.port().to_string());
    let mut command = Command::new("conntrack");
    command.args([verb, "-f", family, "-p", "tcp", "--orig-dst", &ip, "--orig-port-dst", &port, "--state", "SYN_SENT"]);
    if let Some(client) = client {
        let (ip, port) = (client.ip().to_string(), client.port().to_string());
        command.args(["--orig-src", &ip, "--orig-port-src", &port]);
    }
    // It also fails where there is none.
    match command.stdin(Stdio::null()).kill_on_drop(true).output().await {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            tracing::info!(event = "no-conntrack", error = %error);
            String::new()
        }
    }
}

/// Who dialled, from a line such as `tcp 6 119 SYN_SENT src=198.51.100.2 dst=… sport=48222 dport=… [UNREPLIED] src=…`.
fn client(line: &str) -> Option<SocketAddr> {
    let value = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let ip: IpAddr = value("src")?.parse().ok()?;
    Some(SocketAddr::new(ip, value("sport")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_read_from_the_way_there_not_from_the_way_back() {
        for (line, expected) in [
            (
                "tcp      6 119 SYN_SENT src=198.51.100.2 dst=172.30.0.10 sport=48222 dport=30080 [UNREPLIED] \
                 src=10.244.1.7 dst=198.51.100.2 sport=9080 dport=48222 mark=0 use=1",
                Some("198.51.100.2:48222"),
            ),
            (
                "tcp      6 87 SYN_SENT src=fd00:1::2 dst=fd00::10 sport=40000 dport=30080 [UNREPLIED] \
                 src=fd00:244::7 dst=fd00:1::2 sport=9080 dport=40000 mark=0 use=1",
                Some("[fd00:1::2]:40000"),
            ),
            ("", None),
            ("icmp     1 29 src=198.51.100.2 dst=172.30.0.10 type=8 code=0 id=1 [UNREPLIED]", None),
        ] {
            assert_eq!(client(line), expected.map(|address| address.parse().unwrap()), "{line}");
        }
    }
}
