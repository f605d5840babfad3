//! Provider `kind`: nodes as containers.

pub mod image;
