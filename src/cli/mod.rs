//! See ARCHITECTURE.md.

pub mod explain;
