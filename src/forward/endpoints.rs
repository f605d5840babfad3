//! Which pods stand behind a port: an index fed by EndpointSlices (or pods), read as sets of usable endpoints.
//!
//! Pure. Ready endpoints are usable; where none is ready, those that still serve while they terminate (KEP-1669).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::jhash::jhash;
use crate::model::PortRef;

/// One pod's port that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
    /// The pod's name; none behind a Service without selector, which no tunnel can reach.
    pub pod: Option<String>,
    /// The pod's uid: a StatefulSet's new pod has the name of the old one.
    pub uid: Option<String>,
}

impl Endpoint {
    /// What it is known by wherever a client's choice must be the same: the pod, whatever its addresses are.
    pub fn id(&self) -> u64 {
        id_of(self.uid.as_deref(), SocketAddr::new(self.ip, self.port))
    }

    /// As the kernel is led to it.
    pub fn backend(&self) -> Backend {
        Backend { id: self.id(), socket: SocketAddr::new(self.ip, self.port) }
    }
}

/// The same in every process. Without a pod an address stands for itself.
fn id_of(uid: Option<&str>, socket: SocketAddr) -> u64 {
    let hash = |name: &str| u64::from(jhash(name.as_bytes(), 0)) << 32 | u64::from(jhash(name.as_bytes(), 1));
    uid.map_or_else(|| hash(&socket.to_string()), hash)
}

/// A socket that the kernel may be led to, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// [`Endpoint::id`]: the same for both families' sockets of one pod.
    pub id: u64,
    pub socket: SocketAddr,
}

/// One address with all its ports and its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub ip: IpAddr,
    pub pod: Option<String>,
    pub uid: Option<String>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// The node it runs on, where the API tells.
    pub node: Option<String>,
    /// Port numbers by name; an unnamed port has the name "".
    pub ports: Vec<(String, u16)>,
}

/// What the kernel carrier leads to, pair by pair, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// The sockets of each pair's usable endpoints, both families; with `keep_client` only those on this node.
    /// IPv4 before IPv6, each by id.
    pub pairs: Vec<Arc<[Backend]>>,
    /// externalTrafficPolicy Local.
    pub keep_client: bool,
    /// sessionAffinity ClientIP.
    pub by_client: bool,
    /// A pod is starting or ending: more is about to change.
    pub unsettled: bool,
}

/// What a Service says about the way of its traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// externalTrafficPolicy Local: endpoints on the same node only, the client's address kept.
    pub local: bool,
    /// sessionAffinity ClientIP. Its timeoutSeconds is not read: it says for how long a client stays at least, and ours
    /// stay as long as their pods do.
    pub by_client: bool,
}

impl Policy {
    /// Of one Service.
    pub fn of(service: &Service) -> Self {
        let Some(spec) = &service.spec else { return Self::default() };
        Self {
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            by_client: spec.session_affinity.as_deref() == Some("ClientIP"),
        }
    }
}

/// Members by the object that lists them.
#[derive(Debug, Clone, Default)]
pub struct Index {
    objects: BTreeMap<String, Vec<Member>>,
}

impl Index {
    /// An object is new or changed.
    pub fn apply(&mut self, name: &str, members: Vec<Member>) {
        self.objects.insert(name.to_owned(), members);
    }

    /// An object is gone.
    pub fn delete(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Everything anew, after a list.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = (String, Vec<Member>)>) {
        self.objects = objects.into_iter().collect();
    }

    /// The usable endpoints of one port, each pod once (a dual-stack Service lists it in two slices; IPv4 is taken).
    pub fn usable(&self, port: &PortRef) -> Vec<Endpoint> {
        let ready = self.select(port, |m| m.ready && !m.terminating);
        if ready.is_empty() { self.select(port, |m| m.serving) } else { ready }
    }

    /// What the kernel may lead to, port by port. Families are apart here: each has ready endpoints of its own.
    pub fn routes(&self, ports: &[Option<PortRef>], policy: Policy, node: Option<&str>) -> Routes {
        let here = |m: &&Member| !policy.local || m.node.is_some() && m.node.as_deref() == node;
        let members: Vec<&Member> = self.objects.values().flatten().filter(here).collect();
        let backends = |port: &PortRef, v4: bool| -> BTreeSet<Backend> {
            let select = |wanted: fn(&Member) -> bool| {
                let of_family = members.iter().filter(|m| m.ip.is_ipv4() == v4 && wanted(m));
                of_family.filter_map(|m| m.backend(port)).collect::<BTreeSet<_>>()
            };
            let ready = select(|m| m.ready && !m.terminating);
            if ready.is_empty() { select(|m| m.serving) } else { ready }
        };
        let both = |port: &PortRef| backends(port, true).into_iter().chain(backends(port, false)).collect();
        Routes {
            pairs: ports.iter().map(|p| p.as_ref().map(both).unwrap_or_default()).collect(),
            keep_client: policy.local,
            by_client: policy.by_client,
            unsettled: self.objects.values().flatten().any(|m| !m.ready || m.terminating),
        }
    }

    fn select(&self, port: &PortRef, wanted: impl Fn(&Member) -> bool) -> Vec<Endpoint> {
        let mut found: BTreeSet<Endpoint> = BTreeSet::new();
        for member in self.objects.values().flatten().filter(|m| wanted(m)) {
            if let Some(number) = member.port(port) {
                found.insert(Endpoint {
                    ip: member.ip,
                    port: number,
                    pod: member.pod.clone(),
                    uid: member.uid.clone(),
                });
            }
        }
        let mut uids = BTreeSet::new();
        // IpAddr orders IPv4 before IPv6.
        found.into_iter().filter(|e| e.uid.as_ref().is_none_or(|uid| uids.insert(uid.clone()))).collect()
    }
}

impl Member {
    fn backend(&self, port: &PortRef) -> Option<Backend> {
        let socket = SocketAddr::new(self.ip, self.port(port)?);
        Some(Backend { id: id_of(self.uid.as_deref(), socket), socket })
    }

    fn port(&self, wanted: &PortRef) -> Option<u16> {
        match wanted {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => self.ports.iter().find(|(n, _)| n == name).map(|(_, number)| *number),
        }
    }
}

/// The members of one slice. A missing condition reads as the API defines it: ready and serving true, terminating false.
pub fn of_slice(slice: &EndpointSlice) -> Vec<Member> {
    let ports: Vec<(String, u16)> = slice
        .ports
        .iter()
        .flatten()
        .filter(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|p| Some((p.name.clone().unwrap_or_default(), u16::try_from(p.port?).ok()?)))
        .collect();
    let mut members = Vec::new();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let pod = endpoint.target_ref.as_ref().filter(|r| r.kind.as_deref() == Some("Pod"));
        // All addresses of one endpoint are the same backend; only the first is used, as kube-proxy does.
        let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
        members.push(Member {
            ip,
            pod: pod.and_then(|r| r.name.clone()),
            uid: pod.and_then(|r| r.uid.clone()),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            node: endpoint.node_name.clone(),
            ports: ports.clone(),
        });
    }
    members
}

/// A pod as its own only member; none without an IP or after its end.
pub fn of_pod(pod: &Pod) -> Vec<Member> {
    let status = pod.status.clone().unwrap_or_default();
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let Some(ip) = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|_| !over) else {
        return Vec::new();
    };
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    vec![Member {
        ip,
        pod: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ready,
        serving: ready,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        ports: ports
            .filter_map(|p| Some((p.name.clone().unwrap_or_default(), u16::try_from(p.container_port).ok()?)))
            .collect(),
    }]
}

/// How a Service's port is called in its slices: by the name of the Service port that has this number or name.
pub fn slice_port(service: &Service, wanted: &PortRef) -> Option<PortRef> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let found = ports.iter().find(|p| is_tcp(p) && is_meant(p, wanted))?;
    Some(PortRef::Name(found.name.clone().unwrap_or_default()))
}

/// The protocol of the port that is meant, where it is another than TCP.
pub fn other_protocol(service: &Service, wanted: &PortRef) -> Option<String> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports.iter().find(|p| !is_tcp(p) && is_meant(p, wanted))?.protocol.clone()
}

/// TCP is also what a port without a protocol means.
pub fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|p| p == "TCP")
}

fn is_meant(port: &ServicePort, wanted: &PortRef) -> bool {
    match wanted {
        PortRef::Number(number) => port.port == i32::from(*number),
        PortRef::Name(name) => port.name.as_deref() == Some(name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn slice(endpoints: serde_json::Value, port: u16) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }))
        .unwrap()
    }

    fn one(ip: &str, pod: &str, conditions: serde_json::Value) -> serde_json::Value {
        json!({"addresses": [ip], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod, "uid": pod}})
    }

    fn pods(index: &Index, port: &PortRef) -> Vec<String> {
        index.usable(port).into_iter().filter_map(|e| e.pod).collect()
    }

    #[test]
    fn a_terminating_pod_is_left_when_another_is_ready_and_kept_when_none_is() {
        let http = PortRef::Name("http".into());
        let old = one("10.0.0.1", "old", json!({"ready": false, "serving": true, "terminating": true}));
        let new = one("10.0.0.2", "new", json!({"ready": true}));
        let mut index = Index::default();
        index.apply("s", of_slice(&slice(json!([old, new]), 9080)));
        assert_eq!(pods(&index, &http), ["new"]);
        index.apply("s", of_slice(&slice(json!([old]), 9080)));
        assert_eq!(pods(&index, &http), ["old"]);
        index.delete("s");
        assert!(index.usable(&http).is_empty());
    }

    #[test]
    fn the_port_comes_from_the_slice_and_udp_is_none() {
        let mut index = Index::default();
        index.apply("a", of_slice(&slice(json!([one("10.0.0.1", "a", json!({}))]), 9080)));
        index.apply("b", of_slice(&slice(json!([one("10.0.0.2", "b", json!({}))]), 9081)));
        let ports: Vec<u16> = index.usable(&PortRef::Name("http".into())).iter().map(|e| e.port).collect();
        assert_eq!(ports, [9080, 9081]);
        assert!(index.usable(&PortRef::Name("dns".into())).is_empty());
    }

    #[test]
    fn a_dual_stack_pod_is_one_endpoint() {
        let mut index = Index::default();
        index.apply("4", of_slice(&slice(json!([one("10.0.0.1", "a", json!({}))]), 80)));
        index.apply("6", of_slice(&slice(json!([one("fd00::1", "a", json!({}))]), 80)));
        let found = index.usable(&PortRef::Name("http".into()));
        assert_eq!(found.len(), 1);
        assert!(found[0].ip.is_ipv4());
        let routes = index.routes(&[Some(PortRef::Name("http".into()))], Policy::default(), None);
        let ids: Vec<u64> = routes.pairs[0].iter().map(|b| b.id).collect();
        assert_eq!(ids, [found[0].id(), found[0].id()]);
    }

    #[test]
    fn routes_keep_families_apart_and_local_ones_to_this_node() {
        let mut index = Index::default();
        let on = |ip: &str, node: &str, ready: bool| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": ready, "serving": ready}});
        index.apply("4", of_slice(&slice(json!([on("10.0.0.1", "a", true), on("10.0.0.2", "b", true)]), 80)));
        index.apply("6", of_slice(&slice(json!([on("fd00::1", "a", true), on("fd00::2", "b", false)]), 80)));
        let ports = [Some(PortRef::Name("http".into())), None];
        let strings = |routes: &Routes| {
            assert!(routes.pairs[0].is_sorted_by_key(|b| (b.socket.is_ipv6(), b.id)));
            routes.pairs[0]
                .iter()
                .map(|b| b.socket.to_string())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        };
        let all = index.routes(&ports, Policy::default(), Some("b"));
        assert_eq!(strings(&all), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]);
        assert!(all.unsettled && !all.keep_client && all.pairs[1].is_empty());
        let local = Policy { local: true, by_client: true };
        let local = index.routes(&ports, local, Some("b"));
        assert_eq!(strings(&local), ["10.0.0.2:80"]);
        assert!(local.keep_client && local.by_client);
        assert!(index.routes(&ports, Policy { local: true, by_client: false }, None).pairs[0].is_empty());
    }

    #[test]
    fn a_policy_is_read_with_the_defaults_of_the_api() {
        let read = |spec: serde_json::Value| Policy::of(&serde_json::from_value(json!({ "spec": spec })).unwrap());
        assert_eq!(read(json!({})), Policy::default());
        let sticky = read(json!({"externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP"}));
        assert_eq!(sticky, Policy { local: true, by_client: true });
        assert!(!read(json!({"sessionAffinity": "None"})).by_client);
    }

    #[test]
    fn a_service_port_is_found_by_number_and_by_name() {
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [{"name": "http", "port": 9080, "targetPort": 1}, {"port": 80}]}
        }))
        .unwrap();
        let name = |n: &str| Some(PortRef::Name(n.into()));
        assert_eq!(slice_port(&service, &PortRef::Number(9080)), name("http"));
        assert_eq!(slice_port(&service, &PortRef::Name("http".into())), name("http"));
        assert_eq!(slice_port(&service, &PortRef::Number(80)), name(""));
        assert_eq!(slice_port(&service, &PortRef::Number(1)), None);
    }

    prop_compose! {
        fn member()(id in 0u8..6, ready: bool, serving: bool, terminating: bool, port in 1u16..4) -> Member {
            Member {
                ip: IpAddr::from([10, 0, 0, id]),
                pod: Some(format!("p{id}")),
                uid: Some(format!("u{id}")),
                ready, serving, terminating,
                node: None,
                ports: vec![("http".into(), port)],
            }
        }
    }

    proptest! {
        /// Whatever the slices say: nothing but ready ones while one is ready, no pod twice, no unusable one ever.
        #[test]
        fn only_usable_endpoints_come_out(members in proptest::collection::vec(member(), 0..8)) {
            let mut index = Index::default();
            index.reset(members.iter().enumerate().map(|(i, m)| (i.to_string(), vec![m.clone()])));
            let found = index.usable(&PortRef::Name("http".into()));
            let any_ready = members.iter().any(|m| m.ready && !m.terminating);
            prop_assert_eq!(found.is_empty(), !any_ready && !members.iter().any(|m| m.serving));
            for endpoint in &found {
                let source = |m: &&Member| m.ip == endpoint.ip && m.ports[0].1 == endpoint.port;
                let usable = |m: &Member| if any_ready { m.ready && !m.terminating } else { m.serving };
                let found = members.iter().filter(source).any(usable);
                prop_assert!(found, "an unusable endpoint came out");
            }
            let uids: BTreeSet<_> = found.iter().map(|e| &e.uid).collect();
            prop_assert_eq!(uids.len(), found.len());
        }
    }
}
