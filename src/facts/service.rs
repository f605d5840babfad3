//! One Service with its port, selector, pods, endpoints and workload.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::container::{self, Container};
use crate::model::pod::Pod;
use crate::model::{PortRef, Target};

use super::{Endpoint, Index, endpoints, nearest, pod};

type Labels = BTreeMap<String, String>;

/// kube-proxy watches only Services without this label (cmd/kube-proxy/app/server.go).
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Tells the EndpointSliceMirroring controller to leave an Endpoints object alone.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The label of everything this program creates, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kubectl-bookaccess");

/// How the name of a NodePort Service ends that stands beside one that cannot be made one.
const SIBLING: &str = "-bookaccess";

/// The name of that Service.
pub fn sibling_name(service: &str) -> String {
    format!("{service}{SIBLING}")
}

/// The Service of one target, and what hangs on it.
pub struct ServiceFacts<'a> {
    pub service: &'a Service,
    /// The port in question and its index in `spec.ports`; none where the Service has no ports.
    pub port: Option<(usize, &'a ServicePort)>,
    /// Pods that the selector matches, terminating ones included, by name.
    pub pods: Vec<&'a Pod>,
    /// Endpoints of the port in question.
    pub endpoints: Vec<Endpoint<'a>>,
    /// The Deployment whose pod template the selector matches; where none matches, the one that is nearest
    /// (its name is the Service's, or the Service's followed by `-v…`, or most labels agree).
    pub deployment: Option<&'a Deployment>,
    /// Whether the selector really matches that Deployment's pod template.
    pub deployment_matches: bool,
    /// The containers to read declared ports from: of a live pod, else of the Deployment's template.
    pub containers: Cow<'a, [Container]>,
}

impl<'a> ServiceFacts<'a> {
    /// None where the Service is not in the Snapshot.
    pub fn derive(index: &Index<'a>, target: &Target) -> Option<Self> {
        let service = index.service_of(target)?;
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let selector = selector(service);
        let mut pods = index.selected(&target.namespace, service);
        pods.sort_by_key(|p| pod::name(p));
        let matching = index.behind(&target.namespace, service).into_iter();
        // Several may match (versions side by side): the one with pods is the one to speak of.
        let matched = matching.max_by_key(|d| (replicas(d) > 0, std::cmp::Reverse(d.metadata.name.as_deref())));
        let port = choose_port(service, target);
        let deployment =
            matched.or_else(|| nearest::deployment(index.deployments(&target.namespace), &target.service, selector));
        Some(Self {
            service,
            port,
            endpoints: endpoints::of_port(index.slices(&target.namespace, name), port.map(|(_, p)| p)),
            deployment,
            deployment_matches: matched.is_some(),
            containers: containers(&pods, deployment),
            pods,
        })
    }

    /// The spec, where the object has one.
    pub fn spec(&self) -> Option<&'a ServiceSpec> {
        self.service.spec.as_ref()
    }

    /// `spec.type`, with the API's default.
    pub fn kind(&self) -> &'a str {
        self.service.spec.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or("ClusterIP")
    }

    /// `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        self.kind() == "ClusterIP" && self.service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
    }

    /// The nodePort of the port in question.
    pub fn node_port(&self) -> Option<u16> {
        self.port.and_then(|(_, p)| p.node_port).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
    }

    /// `targetPort`, which defaults to `port`.
    pub fn target_port(&self) -> Option<PortRef> {
        let (_, port) = self.port?;
        match &port.target_port {
            Some(IntOrString::String(name)) => Some(PortRef::Name(name.clone())),
            Some(IntOrString::Int(number)) if *number != 0 => u16::try_from(*number).ok().map(PortRef::Number),
            _ => u16::try_from(port.port).ok().map(PortRef::Number),
        }
    }

    /// The protocol of the port in question, with the API's default.
    pub fn protocol(&self) -> &'a str {
        self.port.map_or("TCP", |(_, port)| protocol(port))
    }

    /// `externalTrafficPolicy: Local`.
    pub fn is_local(&self) -> bool {
        self.service.spec.as_ref().and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local")
    }

    /// The service proxy that the Service is left to, where it is not kube-proxy.
    pub fn other_proxy(&self) -> Option<&'a str> {
        self.service.metadata.labels.as_ref()?.get(PROXY_NAME).map(String::as_str)
    }

    /// `sessionAffinity: ClientIP`.
    pub fn is_sticky(&self) -> bool {
        self.spec().and_then(|s| s.session_affinity.as_deref()) == Some("ClientIP")
    }

    /// The selector; empty where the Service has none.
    pub fn selector(&self) -> Option<&'a Labels> {
        selector(self.service)
    }

    /// Endpoints that take connections as far as the API knows.
    pub fn usable(&self) -> impl Iterator<Item = &Endpoint<'a>> {
        self.endpoints.iter().filter(|e| e.is_usable())
    }

    /// Whether a connection to the nodePort would have somewhere to go: a nodePort and a ready endpoint behind it.
    pub fn is_sound(&self) -> bool {
        self.node_port().is_some() && self.usable().next().is_some()
    }

    /// Whether the Service has the IP family of an address, and a ready endpoint of it. An old or hand-written object
    /// need not say which families it has.
    pub fn serves(&self, ip: IpAddr) -> bool {
        let families = self.spec().and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
        let listed = families.is_empty() || families.iter().any(|f| f == endpoints::family(ip));
        listed && self.usable().any(|e| e.ip.is_ipv6() == ip.is_ipv6())
    }

    /// Whether a destination found in a node's rules is one of the endpoints.
    pub fn leads_here(&self, backend: &SocketAddr) -> bool {
        self.endpoints
            .iter()
            .any(|e| (e.ready || e.serving) && e.ip == backend.ip() && e.port.is_none_or(|p| p == backend.port()))
    }

    /// The pod behind an endpoint.
    pub fn pod_of(&self, endpoint: &Endpoint<'_>) -> Option<&'a Pod> {
        self.pods.iter().copied().find(|p| endpoint.pod == Some(pod::name(p)))
    }

    /// Pods that are neither being deleted nor finished.
    pub fn live_pods(&self) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().copied().filter(|p| pod::is_live(p))
    }

    /// Live pods of the Deployment that is nearest, where the selector matches none: those that were meant.
    pub fn meant_pods(&self, index: &Index<'a>) -> Vec<&'a Pod> {
        let Some(deployment) = self.deployment.filter(|_| !self.deployment_matches) else { return Vec::new() };
        let selector = deployment.spec.as_ref().and_then(|s| s.selector.match_labels.as_ref());
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let of_it = |p: &&&Pod| pod::is_live(p) && matches(selector, p.metadata.labels.as_ref());
        index.pods_in(namespace).iter().filter(of_it).copied().collect()
    }

    /// Seconds since the Service was made or last changed by anybody.
    pub fn unchanged_for(&self, now: Timestamp) -> Option<i64> {
        let meta = &self.service.metadata;
        let changes = meta.managed_fields.iter().flatten().filter_map(|f| f.time.as_ref());
        meta.creation_timestamp.iter().chain(changes).map(|t| now.as_second() - t.0.as_second()).min()
    }

    /// The container port that a TCP targetPort most likely means: the one declared of the Service port's name or
    /// `http*`, else the only one.
    pub fn likely_container_port(&self) -> Option<(&str, u16)> {
        let declared = pod::declared_ports(&self.containers);
        let name = self.port.and_then(|(_, p)| p.name.as_deref()).unwrap_or_default();
        let number = self.port.and_then(|(_, p)| u16::try_from(p.port).ok());
        let by = |f: &dyn Fn(&(&str, u16)) -> bool| declared.iter().copied().find(|d| f(d));
        by(&|d| !name.is_empty() && d.0 == name)
            .or_else(|| by(&|d| Some(d.1) == number))
            .or_else(|| by(&|d| d.0.starts_with("http")))
            .or_else(|| declared.first().copied().filter(|_| declared.len() == 1))
    }

    /// The selector that would match the nearest Deployment's pods: each key with the template's value; a key that the
    /// template does not know gives way to the template's key of the same value. None where nothing would be left.
    pub fn mended_selector(&self) -> Option<Labels> {
        let template = template_labels(self.deployment?)?;
        let mut mended = Labels::new();
        for (key, value) in self.selector()? {
            let same_value = || template.iter().find(|(_, v)| *v == value).map(|(k, v)| (k.clone(), v.clone()));
            match template.get(key).map(|v| (key.clone(), v.clone())).or_else(same_value) {
                Some((key, value)) => mended.insert(key, value),
                None => None,
            };
        }
        (!mended.is_empty()).then_some(mended)
    }
}

/// Whether a selector matches labels. An empty or absent selector matches nothing.
pub fn matches(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|s| !s.is_empty()) else { return false };
    selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// The labels of the pods that a Deployment makes.
pub fn template_labels(deployment: &Deployment) -> Option<&Labels> {
    deployment.spec.as_ref()?.template.metadata.as_ref()?.labels.as_ref()
}

/// `spec.replicas`, with the API's default.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Why the pods of a Deployment cannot even be made: quota or admission, in their words.
pub fn replica_failure(deployment: &Deployment) -> Option<&str> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(failure.message.as_deref().unwrap_or_default())
}

/// The protocol of a port, with the API's default.
pub fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// `spec.selector`.
pub fn selector(service: &Service) -> Option<&Labels> {
    service.spec.as_ref().and_then(|s| s.selector.as_ref())
}

/// Whether this program created it beside another.
pub fn is_sibling(service: &Service) -> bool {
    let ours = service.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY.0)).is_some_and(|v| v == MANAGED_BY.1);
    ours && service.metadata.name.as_deref().is_some_and(|n| n.ends_with(SIBLING))
}

pub(super) fn opens_no_port(service: &Service) -> bool {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    ports.iter().all(|p| p.node_port.is_none_or(|n| n == 0))
}

/// Of the first live pod, else of the Deployment's template.
fn containers<'a>(pods: &[&'a Pod], deployment: Option<&Deployment>) -> Cow<'a, [Container]> {
    match pods.iter().find(|p| pod::is_live(p)) {
        Some(found) => pod::containers(found).into(),
        None => {
            let template = deployment.and_then(|d| d.spec.as_ref()?.template.spec.as_ref());
            template.map(container::of_template).unwrap_or_default().into()
        }
    }
}

/// The port that was named; else the one with the expected nodePort, else `http*`, else the first. One number may stand
/// for a TCP and a UDP port: browsers mean the TCP one.
fn choose_port<'a>(service: &'a Service, target: &Target) -> Option<(usize, &'a ServicePort)> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let find = |f: &dyn Fn(&ServicePort) -> bool| {
        let fits = ports.iter().enumerate().filter(|(_, p)| f(p));
        fits.min_by_key(|(index, p)| (protocol(p) != "TCP", *index))
    };
    if let Some(named) = &target.port {
        return find(&|p| match named {
            PortRef::Number(n) => p.port == i32::from(*n) || p.node_port == Some(i32::from(*n)),
            PortRef::Name(n) => p.name.as_deref() == Some(n),
        });
    }
    find(&|p| target.node_port.is_some() && p.node_port == target.node_port.map(i32::from))
        .or_else(|| find(&|p| p.name.as_deref().is_some_and(|n| n.starts_with("http"))))
        .or_else(|| find(&|_| true))
}
