//! The stand-ins for Bookinfo and Grafana.
fn main() {}
