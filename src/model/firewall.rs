//! What this node's firewalls do to packets on their way: the chains that see what comes in and what is forwarded.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// All filtering rules of a node, kube-proxy's translation and our own left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Firewall {
    pub chains: Vec<Chain>,
    /// Services that write rules here and would write them again: `firewalld`, `ufw`.
    #[serde(default)]
    pub managers: BTreeSet<String>,
}

/// One chain; a base chain where it says at which hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chain {
    /// The program that reads and writes it: `nft`, `iptables-nft`, `iptables-legacy`, `iptables`.
    pub program: String,
    /// nftables' family: `ip`, `inet`, `netdev`.
    pub family: String,
    pub table: String,
    pub name: String,
    /// `ingress`, `prerouting`, `forward` or `postrouting`; none for a chain that others jump to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    #[serde(default)]
    pub priority: i32,
    /// The device of a chain of family netdev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What no rule decides is dropped.
    #[serde(default)]
    pub drops: bool,
    /// Packets that met the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Counted>,
    #[serde(default)]
    pub rules: Vec<FilterRule>,
}

impl Chain {
    /// As its program names it: `iptables -t raw PREROUTING`, `nft inet firewalld filter_FORWARD`.
    pub fn title(&self) -> String {
        if self.is_iptables() {
            format!("{} -t {} {}", self.program, self.table, self.name)
        } else {
            format!("nft {} {} {}", self.family, self.table, self.name)
        }
    }

    /// Whether iptables reads and writes it, by whichever backend.
    pub fn is_iptables(&self) -> bool {
        self.program.starts_with("iptables")
    }
}

/// A packet counter before and after the outsider probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    pub before: u64,
    /// None where it was read only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

impl Counted {
    /// Whether it rose meanwhile; none where that is not known.
    pub fn rose(&self) -> Option<bool> {
        self.after.map(|after| after > self.before)
    }
}

/// One rule that decides something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterRule {
    /// As its program lists it.
    pub text: String,
    /// All of these must hold.
    #[serde(default)]
    pub when: Vec<Condition>,
    pub then: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Counted>,
}

/// What a rule does with the packets it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Verdict {
    Accept,
    Drop,
    /// Dropped, and the sender is told by this answer, e.g. `icmp-host-prohibited`.
    Reject {
        with: String,
    },
    Jump {
        to: String,
    },
    Goto {
        to: String,
    },
    Return,
    /// Something that may end the packet's way through the chain; what, is not known.
    Unknown,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub on: Field,
    /// One of these must be the packet's: addresses as IP, CIDR or `from-to`, ports as number or `from-to`, devices
    /// with `*` at the end for any rest, states in lower case, marks as `value/mask`.
    #[serde(default)]
    pub any: Vec<String>,
    #[serde(default)]
    pub not: bool,
}

/// What a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Field {
    Source,
    Destination,
    InDevice,
    OutDevice,
    Protocol,
    SourcePort,
    DestinationPort,
    /// Of the connection: `new`, `established`, ….
    State,
    /// `dnat` for a connection whose destination was translated.
    Status,
    Mark,
    /// `local` for an address of this node.
    DestinationType,
    /// TCP's SYN without ACK.
    Syn,
    /// Nothing that is understood here.
    Other,
}
