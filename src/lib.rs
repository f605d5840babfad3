//! `kubectl bookaccess`: why a NodePort page does not open, and how it opens again.
//!
//! ```text
//! kubeconfig -> observe -> Snapshot -> facts -> check -> [Finding] -> plan -> Plan -> apply -> verify -+
//!                  ^          |                              |          |        |                    |
//!                  |          +-> file (offline, bug report)  +----------+--------+--> render (ko, en, json)
//!                  +--------------------------------- observe again <---------------------------------+
//! browser -> listener -> session: balancer.pick(EndpointSet) -> carrier -> pod     supervise: state -> daemon
//! ```
//!
//! The modules stand in the order of that flow; `model` holds the nouns that travel along it.

rust_i18n::i18n!("locales", fallback = "en");

pub mod error;
pub mod exit;
pub mod i18n;
pub mod parts;
pub mod statedir;
pub mod telemetry;

pub mod apply;
pub mod check;
pub mod cli;
pub mod facts;
pub mod forward;
pub mod model;
pub mod observe;
pub mod plan;
pub mod render;
pub mod supervise;
