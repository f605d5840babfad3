//! Support for the end-to-end suites: a cluster handle, the applications, faults as data, conditions
//! with deadlines, and the frame that every scenario runs in.

pub mod apiserver;
pub mod app;
pub mod cluster;
pub mod condition;
pub mod faults;
pub mod load;
pub mod matrix;
pub mod objects;
pub mod page;
pub mod plugin;
pub mod scenario;
pub mod size;
pub mod way;
