//! Carries out a plan: the only module that writes to the cluster.
//!
//! The life of a step: server dry-run, journal (fsync), the write, the rollout, then the caller's verification; what
//! does not verify is reverted. The journal lies with the state of this machine and is mirrored into the cluster, so
//! that a fix made elsewhere can be listed and undone here.

pub mod error;
pub mod executor;
#[cfg(test)]
mod fake;
pub mod history;
pub mod journal;
#[cfg(test)]
mod killed;
pub mod kube;
mod lease;
pub mod list;
mod mirror;
mod node;
mod rollout;
mod take_back;
#[cfg(test)]
mod tests;
pub mod undo;

pub use error::Error;
pub use executor::{Fix, ForwardRequest, Forwarder, Settings};
pub use history::{Entry, Past, Progress};
pub use journal::{Outcome, Record};
pub use list::{Listed, State, Where, list};
pub use undo::{Undoable, Undone, find as find_undoable, undo};
