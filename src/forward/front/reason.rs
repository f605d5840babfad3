//! What the kernel carrier does, and why it does not carry.

use serde::{Deserialize, Serialize};

use crate::model::Text;

/// Why the kernel does not carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Reason {
    #[error("another mode was asked for")]
    Mode,
    #[error("only the listener keeps --allow-cidr and --proxy-protocol")]
    Terms,
    #[error("this system is not Linux")]
    NotLinux,
    #[error("it needs the rights of root")]
    NotRoot,
    #[error("it needs an address of this node to listen on, not localhost")]
    NoAddress,
    #[error("rules were not asked for (--front or --mode kernel)")]
    NoRules,
    #[error("the program nft is missing")]
    NoNft,
    #[error("{by} keeps this node's packets away from netfilter")]
    NoNetfilterPath { by: String },
    #[error("the nftables table {table} belongs to somebody else")]
    TableOccupied { table: String },
    #[error("the rules cannot be written: {message}")]
    RulesFailed { message: String },
    #[error("no probe can be sent from a network namespace: {message}")]
    NoProbe { message: String },
    #[error("the port works without us")]
    Behind,
    #[error("no ready endpoint{}", if *.local { " on this node (externalTrafficPolicy Local)" } else { "" })]
    NoEndpoint { local: bool },
    #[error("endpoints are changing; the listener can retry meanwhile")]
    Changing,
    #[error("a probe of the kernel's path to the pods fails")]
    PathFails,
}

impl Reason {
    /// As a sentence for people.
    pub fn text(&self) -> Text {
        match self {
            Self::Mode => Text::new("kernel.reason.mode"),
            Self::Terms => Text::new("kernel.reason.terms"),
            Self::NotLinux => Text::new("kernel.reason.not_linux"),
            Self::NotRoot => Text::new("kernel.reason.not_root"),
            Self::NoAddress => Text::new("kernel.reason.no_address"),
            Self::NoRules => Text::new("kernel.reason.no_rules"),
            Self::NoNft => Text::new("kernel.reason.no_nft"),
            Self::NoNetfilterPath { by } => Text::new("kernel.reason.no_netfilter_path").with("by", by),
            Self::TableOccupied { table } => Text::new("kernel.reason.table_occupied").with("table", table),
            Self::RulesFailed { message } => Text::new("kernel.reason.rules_failed").with("message", message),
            Self::NoProbe { message } => Text::new("kernel.reason.no_probe").with("message", message),
            Self::Behind => Text::new("kernel.reason.behind"),
            Self::NoEndpoint { local: false } => Text::new("kernel.reason.no_endpoint"),
            Self::NoEndpoint { local: true } => Text::new("kernel.reason.no_local_endpoint"),
            Self::Changing => Text::new("kernel.reason.changing"),
            Self::PathFails => Text::new("kernel.reason.path_fails"),
        }
    }
}

/// What the kernel carrier does at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelReport {
    /// New connections are led to pods by the kernel.
    pub carrying: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none", flatten)]
    pub reason: Option<Reason>,
    /// Endpoints that a probe reached by the kernel's path.
    pub proven: usize,
    /// Connections carried so far, by the Spec's pairs.
    pub connections: Vec<u64>,
    /// Renewals of the leases so far.
    pub renewals: u64,
}
