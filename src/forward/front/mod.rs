//! Rules of our own that lead a public address around kube-proxy's: straight to the endpoints where the kernel's path is
//! proven to work (the kernel carrier), else to our listener, where a connection is parked or carried by other ways.
//!
//! ```text
//! standby: does the NodePort work for a stranger? -> position        prove: which endpoints work -> trust
//!                                   lease: position + routes + trust -> rules (nft), renewed each second
//! ```
//!
//! Everything acts through leases of three seconds, so that nothing acts once we are dead or stuck.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::slots::Slots;

pub mod reason;
pub mod rules;
pub mod trust;

#[cfg(target_os = "linux")]
mod keep;
#[cfg(target_os = "linux")]
pub mod nft;
#[cfg(target_os = "linux")]
pub mod probe;
#[cfg(target_os = "linux")]
mod prove;
#[cfg(target_os = "linux")]
mod unanswered;

#[cfg(target_os = "linux")]
pub use keep::{Front, Inputs, check, keep, ways};
#[cfg(target_os = "linux")]
pub use nft::{remove_table, tables};
pub use reason::{KernelReport, Reason};
pub use rules::{Family, table_name};

/// All our tables have names that begin so.
pub const TABLE_PREFIX: &str = "bookaccess_";

/// Where clients that stay with their pods are led, by family and pair, as far as all endpoints were tried.
pub type Led = BTreeMap<(Family, usize), Slots>;

/// One address that browsers dial, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The node's address and the port.
    pub public: SocketAddr,
    /// The listener's private socket.
    pub private: SocketAddr,
    /// The Spec's pair it belongs to.
    pub pair: usize,
}
