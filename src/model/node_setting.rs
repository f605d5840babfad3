//! Settings of a node that a step changes. Command and inverse command follow from the data.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The comment of every rule of ours in a chain of somebody else.
pub const RULE_COMMENT: &str = "kubectl-bookaccess fix";

/// One setting, with what it was and what it becomes. Nothing here outlives the node's next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "set")]
pub enum NodeSetting {
    /// A setting of the kernel by its dotted name. Inverse: the old value.
    Sysctl { name: String, from: String, to: String },
    /// A route that is not there. Inverse: deletes it.
    Route { cidr: String, via: IpAddr },
    /// A rule at the head of an iptables chain that accepts these packets. Inverse: deletes it.
    IptablesAccept { program: String, table: String, chain: String, packets: Packets },
    /// A rule at the head of a base chain of nftables that accepts these packets. Inverse: deletes it.
    NftAccept { family: String, table: String, chain: String, packets: Packets },
    /// Connections to this network are told to send packets of at most so many bytes. Inverse: no longer.
    SegmentSize { program: String, network: String, size: u16 },
    /// A port that firewalld lets in, until its next reload. Inverse: takes it out again.
    FirewalldPort { port: u16 },
    /// A network that firewalld trusts, until its next reload. Inverse: no longer.
    FirewalldSource { cidr: String },
}

/// TCP packets to a port, or from it, as they pass a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Packets {
    /// The network they go to, or come from; none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    pub port: u16,
    /// They are answers: network and port are where they come from.
    #[serde(default)]
    pub answers: bool,
}

type Argv = Vec<String>;

fn argv(words: &[&str]) -> Argv {
    words.iter().map(|w| (*w).to_owned()).collect()
}

impl NodeSetting {
    /// The program with its arguments that makes the change.
    pub fn command(&self) -> Argv {
        match self {
            Self::Sysctl { name, to, .. } => argv(&["sysctl", "-w", &format!("{name}={to}")]),
            Self::Route { cidr, via } => argv(&["ip", "route", "add", cidr, "via", &via.to_string()]),
            Self::IptablesAccept { .. } | Self::SegmentSize { .. } => self.iptables("-I"),
            Self::NftAccept { family, table, chain, packets } => {
                let mut words = argv(&["nft", "insert", "rule", family, table, chain]);
                words.extend(packets.nft());
                words.extend(argv(&["accept", "comment", &format!("\"{}\"", packets.comment())]));
                words
            }
            Self::FirewalldPort { port } => argv(&["firewall-cmd", &format!("--add-port={port}/tcp")]),
            Self::FirewalldSource { cidr } => {
                argv(&["firewall-cmd", "--zone=trusted", &format!("--add-source={cidr}")])
            }
        }
    }

    /// The program that takes it back. An nftables rule is deleted by the handle that the kernel gave it.
    pub fn undo(&self, handle: Option<u64>) -> Argv {
        match self {
            Self::Sysctl { name, from, .. } => argv(&["sysctl", "-w", &format!("{name}={from}")]),
            Self::Route { cidr, via } => argv(&["ip", "route", "del", cidr, "via", &via.to_string()]),
            Self::IptablesAccept { .. } | Self::SegmentSize { .. } => self.iptables("-D"),
            Self::NftAccept { family, table, chain, .. } => {
                let handle = handle.map_or_else(|| "HANDLE".to_owned(), |h| h.to_string());
                argv(&["nft", "delete", "rule", family, table, chain, "handle", &handle])
            }
            Self::FirewalldPort { port } => argv(&["firewall-cmd", &format!("--remove-port={port}/tcp")]),
            Self::FirewalldSource { cidr } => {
                argv(&["firewall-cmd", "--zone=trusted", &format!("--remove-source={cidr}")])
            }
        }
    }

    /// The program that says whether the change stands: by its exit code, or for an nftables rule and a route by what
    /// it lists.
    pub fn query(&self) -> Argv {
        match self {
            Self::Sysctl { name, .. } => argv(&["sysctl", "-n", name]),
            Self::Route { cidr, .. } => argv(&["ip", "-j", "route", "show", "exact", cidr]),
            Self::IptablesAccept { .. } | Self::SegmentSize { .. } => self.iptables("-C"),
            Self::NftAccept { family, table, chain, .. } => argv(&["nft", "-j", "list", "chain", family, table, chain]),
            Self::FirewalldPort { port } => argv(&["firewall-cmd", &format!("--query-port={port}/tcp")]),
            Self::FirewalldSource { cidr } => {
                argv(&["firewall-cmd", "--zone=trusted", &format!("--query-source={cidr}")])
            }
        }
    }

    fn iptables(&self, verb: &str) -> Argv {
        if let Self::SegmentSize { program, network, size } = self {
            let mut words =
                argv(&[program, "-w", "-t", "mangle", verb, "FORWARD", "-d", network, "-p", "tcp", "-m", "tcp"]);
            words.extend(argv(&["--tcp-flags", "SYN,RST", "SYN", "-m", "comment", "--comment", RULE_COMMENT]));
            words.extend(argv(&["-j", "TCPMSS", "--set-mss", &size.to_string()]));
            return words;
        }
        let Self::IptablesAccept { program, table, chain, packets } = self else { return Argv::new() };
        let mut words = argv(&[program, "-w", "-t", table, verb, chain]);
        let (network, port) = if packets.answers { ("-s", "--sport") } else { ("-d", "--dport") };
        if let Some(cidr) = &packets.network {
            words.extend(argv(&[network, cidr]));
        }
        words.extend(argv(&["-p", "tcp", "-m", "tcp", port, &packets.port.to_string()]));
        words.extend(argv(&["-m", "comment", "--comment", RULE_COMMENT, "-j", "ACCEPT"]));
        words
    }
}

impl Packets {
    fn nft(&self) -> Argv {
        let (network, port) = if self.answers { ("saddr", "sport") } else { ("daddr", "dport") };
        let family = if self.network.as_deref().is_some_and(|n| n.contains(':')) { "ip6" } else { "ip" };
        let mut words = Argv::new();
        if let Some(cidr) = &self.network {
            words.extend(argv(&[family, network, cidr]));
        }
        words.extend(argv(&["tcp", port, &self.port.to_string()]));
        words
    }

    /// The comment by which the rule of these packets is found again.
    pub fn comment(&self) -> String {
        let (network, way) = (self.network.as_deref().unwrap_or("any"), if self.answers { "from" } else { "to" });
        format!("{RULE_COMMENT}: {way} {network} {}", self.port)
    }
}

/// A command as it is typed in a shell.
pub fn typed(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let word = |word: &String| match word.chars().all(plain) && !word.is_empty() {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(answers: bool) -> Packets {
        Packets { network: Some("10.244.1.0/24".to_owned()), port: 9080, answers }
    }

    #[test]
    fn each_setting_has_its_command_and_its_inverse() {
        let via = IpAddr::from([10, 0, 0, 11]);
        let text = |s: &str| s.to_owned();
        let table = [
            (
                NodeSetting::Sysctl { name: text("net.ipv4.ip_forward"), from: text("0"), to: text("1") },
                "sysctl -w net.ipv4.ip_forward=1",
                "sysctl -w net.ipv4.ip_forward=0",
            ),
            (
                NodeSetting::Route { cidr: text("10.244.1.0/24"), via },
                "ip route add 10.244.1.0/24 via 10.0.0.11",
                "ip route del 10.244.1.0/24 via 10.0.0.11",
            ),
            (
                NodeSetting::IptablesAccept {
                    program: text("iptables-nft"),
                    table: text("filter"),
                    chain: text("FORWARD"),
                    packets: packets(false),
                },
                "iptables-nft -w -t filter -I FORWARD -d 10.244.1.0/24 -p tcp -m tcp --dport 9080 -m comment --comment 'kubectl-bookaccess fix' -j ACCEPT",
                "iptables-nft -w -t filter -D FORWARD -d 10.244.1.0/24 -p tcp -m tcp --dport 9080 -m comment --comment 'kubectl-bookaccess fix' -j ACCEPT",
            ),
            (
                NodeSetting::NftAccept {
                    family: text("inet"),
                    table: text("wall"),
                    chain: text("forward"),
                    packets: packets(true),
                },
                "nft insert rule inet wall forward ip saddr 10.244.1.0/24 tcp sport 9080 accept comment '\"kubectl-bookaccess fix: from 10.244.1.0/24 9080\"'",
                "nft delete rule inet wall forward handle 7",
            ),
            (
                NodeSetting::FirewalldPort { port: 30080 },
                "firewall-cmd --add-port=30080/tcp",
                "firewall-cmd --remove-port=30080/tcp",
            ),
        ];
        for (setting, command, undo) in table {
            assert_eq!((typed(&setting.command()).as_str(), typed(&setting.undo(Some(7))).as_str()), (command, undo));
        }
    }
}
