//! Support for the end-to-end suites: a cluster handle, the applications, faults as data, conditions
//! with deadlines, and the frame that every scenario runs in. Clusters are held on Unix only; what the
//! product's own tests need is there wherever it is built.

pub mod apiserver;
#[cfg(unix)]
pub mod app;
#[cfg(unix)]
pub mod beside;
#[cfg(unix)]
pub mod cluster;
pub mod condition;
#[cfg(unix)]
pub mod faults;
#[cfg(unix)]
pub mod load;
#[cfg(unix)]
pub mod matrix;
#[cfg(unix)]
pub mod objects;
#[cfg(unix)]
pub mod page;
#[cfg(unix)]
pub mod plugin;
#[cfg(unix)]
pub mod scenario;
pub mod size;
#[cfg(unix)]
pub mod way;
