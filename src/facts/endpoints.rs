//! The endpoints behind one Service port, merged from its EndpointSlices.

use std::net::IpAddr;

/// One address of a slice, with the port that belongs to the Service port in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint<'a> {
    pub ip: IpAddr,
    /// None where the slice does not list the port (a named targetPort that the pod does not declare).
    pub port: Option<u16>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<&'a str>,
    pub pod: Option<&'a str>,
}
