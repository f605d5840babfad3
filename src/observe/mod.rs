//! Looks at the cluster from several vantages at once and makes a Snapshot of it.
//!
//! What cannot be read becomes a Gap with its reason; nothing here judges.

pub mod addresses;
pub mod answering;
pub mod certificate;
pub mod client;
pub mod dial;
pub mod environment;
pub mod file;
pub mod firewall;
mod large;
pub mod look;
pub mod network;
pub mod node;
pub mod objects;
pub mod other_policies;
#[cfg(target_os = "linux")]
pub mod outsider;
pub mod probe_pod;
pub mod probes;
pub mod program;
pub mod proxies;
pub mod redact;
mod rights;
pub mod rules;
mod scrub;
mod sockets;
pub mod targets;

pub use client::{Cluster, Connection, connect};
pub use look::{Scope, choose, complete, glance, look};
