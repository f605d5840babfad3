//! Looks at the cluster from several vantages at once and makes a Snapshot of it.

pub mod client;
pub mod dial;
#[cfg(target_os = "linux")]
pub mod outsider;
