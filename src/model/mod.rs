//! The nouns that travel through the program: plain data, serialisable, without any I/O.

pub mod address;
pub mod client;
pub mod container;
pub mod evidence;
pub mod finding;
pub mod firewall;
pub mod gap;
pub mod host;
pub mod node_setting;
pub mod object_ref;
pub mod plan;
pub mod pod;
pub mod port;
pub mod probe;
pub mod snapshot;
pub mod target;
pub mod target_word;
pub mod text;

pub use address::{Address, AddressSource};
pub use client::{Answering, Client, HttpProxy};
pub use evidence::Evidence;
pub use finding::{Code, Confidence, Finding, Severity};
pub use firewall::Firewall;
pub use gap::{Gap, GapReason, Input};
pub use host::{Device, Host, NodePortRule, OWN_PROCESS, ProxyMode, Route, Rules, Stand};
pub use node_setting::NodeSetting;
pub use object_ref::ObjectRef;
pub use plan::{Act, ActionName, Allow, Change, Plan, Restart, Step, Tier, Verify, Withheld};
pub use port::PortRef;
pub use probe::{Outcome, Probe, Vantage};
pub use snapshot::{Objects, Snapshot};
pub use target::Target;
pub use target_word::{Kind, NoTarget, TargetWord};
pub use text::Text;
