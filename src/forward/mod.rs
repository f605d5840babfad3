//! The fallback path: a listener here, a pod there, and a carrier in between.

pub mod spec;

pub use spec::{ForwardArgs, ForwardVerb, Front, Kind, Mode, Page, Pair, Spec};
