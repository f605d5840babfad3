//! The fallback path: a listener here, a pod there, and a carrier in between.
//!
//! ```text
//! browser -> front: rules {kernel -> pod | listener}
//!            listener -> worker -> doors -> session: balancer.pick(endpoints) -> carrier {direct | tunnel} -> pod
//!                                                    ^ index <- watch(EndpointSlice)
//! ```

pub mod affinity;
pub mod balancer;
pub mod carrier;
pub mod doors;
pub mod endpoints;
pub mod flow;
pub mod front;
#[cfg(target_os = "linux")]
pub mod gather;
pub mod holder;
pub mod jhash;
pub mod listener;
pub mod metrics;
pub mod proxy_protocol;
pub mod refusal;
pub mod relay;
pub mod report;
pub mod run;
pub mod scout;
pub mod session;
pub mod slots;
pub mod spec;
#[cfg(target_os = "linux")]
pub mod splice;
#[cfg(target_os = "linux")]
pub mod standby;
pub mod stats;
pub mod wait_page;
pub mod watch;
pub mod worker;

pub use spec::{ForwardArgs, ForwardVerb, Front, Kind, Limits, Mode, Page, Pair, Spec};
