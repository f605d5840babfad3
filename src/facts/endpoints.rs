//! The endpoints behind one Service port, merged from its EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::EndpointSlice;

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

impl Endpoint<'_> {
    /// Takes connections as far as the API knows: ready, with a port.
    pub fn is_usable(&self) -> bool {
        self.ready && self.port.is_some()
    }
}

/// The IP family of an address, as `spec.ipFamilies` of a Service and `addressType` of a slice spell it.
pub fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// Whether a slice belongs to that Service.
pub fn is_of(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let owner = labels.and_then(|l| l.get("kubernetes.io/service-name")).map(String::as_str);
    owner == Some(service) && slice.metadata.namespace.as_deref() == Some(namespace)
}

/// The endpoints of one port of a Service, from its slices, ordered by address. An address that stands in two of them, as
/// it does for a moment when the controller moves it, counts once: ready where one of them says so.
pub fn of_port<'a>(slices: &[&'a EndpointSlice], port: Option<&ServicePort>) -> Vec<Endpoint<'a>> {
    let wanted = port.and_then(|p| p.name.as_deref()).unwrap_or_default();
    let mut merged: BTreeMap<IpAddr, Endpoint<'a>> = BTreeMap::new();
    for slice in slices {
        let number = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == wanted)
            .and_then(|p| p.port.and_then(|p| u16::try_from(p).ok()));
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            // Absent conditions mean ready (EndpointConditions, discovery/v1).
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let pod = endpoint.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"));
            for ip in endpoint.addresses.iter().filter_map(|a| a.parse().ok()) {
                let new = Endpoint {
                    ip,
                    port: number,
                    ready,
                    serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                    terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
                    node: endpoint.node_name.as_deref(),
                    pod: pod.and_then(|t| t.name.as_deref()),
                };
                let rank = |e: &Endpoint<'_>| (e.is_usable(), e.ready, e.serving, e.port, e.pod.map(str::to_owned));
                match merged.get(&ip) {
                    Some(old) if rank(old) >= rank(&new) => {}
                    _ => {
                        merged.insert(ip, new);
                    }
                }
            }
        }
    }
    merged.into_values().collect()
}
