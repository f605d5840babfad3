//! The objects of a small cluster: one Service, its pods and slices, and every change since the beginning.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::runtime::Sandbox;

pub(super) const SERVICES: &str = "/api/v1/namespaces/bookinfo/services";
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bookinfo/endpointslices";
const PODS: &str = "/api/v1/namespaces/bookinfo/pods/";

/// What the API server knows.
pub(super) struct World {
    /// The uid of namespace kube-system: the identity of the cluster.
    pub uid: String,
    /// The address of the only node.
    pub node: IpAddr,
    pub service: Option<Value>,
    /// The Service's ports by name, as the pods have them.
    ports: Vec<(String, u16)>,
    pods: Vec<IpAddr>,
    /// The node that slices say the pods run on; they need not say.
    pub runs_on: Option<String>,
    /// Every change so far: the resource, and the watch event. A resourceVersion is an index into it.
    pub changes: Vec<(&'static str, Value)>,
}

impl World {
    pub fn new(node: IpAddr, ports: &[(&str, u16)], pods: Vec<IpAddr>) -> Self {
        let service_port = |(number, (name, _)): (u16, &(&str, u16))| json!({"name": name, "port": 9080 + number, "targetPort": name, "protocol": "TCP"});
        let service_ports: Vec<Value> = (0..).zip(ports).map(service_port).collect();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "productpage", "namespace": "bookinfo", "uid": "s", "resourceVersion": "1"},
            "spec": {"type": "ClusterIP", "selector": {"app": "productpage"}, "ports": service_ports},
        });
        let ports = ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        Self {
            uid: "first-cluster".to_owned(),
            node,
            service: Some(service),
            ports,
            pods,
            runs_on: None,
            changes: Vec::new(),
        }
    }

    /// Records a change of an object; whoever watches is told of it.
    pub fn record(&mut self, resource: &'static str, kind: &str, mut object: Value) {
        object["metadata"]["resourceVersion"] = json!((self.changes.len() + 1).to_string());
        self.changes.push((resource, json!({"type": kind, "object": object})));
    }

    pub fn set_pods(&mut self, pods: &[SocketAddr]) {
        if let (Some((_, port)), Some(pod)) = (self.ports.first_mut(), pods.first()) {
            *port = pod.port();
        }
        self.pods = pods.iter().map(SocketAddr::ip).collect();
        for slice in self.slices() {
            self.record(SLICES, "MODIFIED", slice);
        }
    }

    /// A pod that listens elsewhere is another pod.
    fn pod_uid(&self, number: usize) -> Option<String> {
        let port = self.ports.first().map_or(1, |(_, port)| *port);
        self.pods.get(number).map(|ip| SocketAddr::new(*ip, port).to_string())
    }

    /// The number and uid of the pod `name` in namespace bookinfo.
    pub fn pod(&self, name: &str) -> Option<(usize, String)> {
        let number = name.strip_prefix("pod-")?.parse().ok()?;
        Some((number, self.pod_uid(number)?))
    }

    /// What is left of a pod that a tunnel was opened to.
    pub fn sandbox(&self, number: usize, uid: &str, port: u16) -> Sandbox {
        match (self.pods.get(number), self.pod_uid(number)) {
            (Some(ip), Some(now)) if now == uid => Sandbox::Up(SocketAddr::new(*ip, port)),
            (Some(_), _) => Sandbox::Closed,
            (None, _) => Sandbox::Forgotten,
        }
    }

    /// One for each family, as the controller writes them.
    fn slices(&self) -> [Value; 2] {
        [("productpage-1", true), ("productpage-2", false)].map(|(name, v4)| self.slice(name, v4))
    }

    fn slice(&self, name: &str, v4: bool) -> Value {
        let endpoints: Vec<Value> = (0..self.pods.len())
            .filter(|number| self.pods[*number].is_ipv4() == v4)
            .map(|number| {
                json!({"nodeName": self.runs_on, "addresses": [self.pods[number]], "conditions": {"ready": true, "serving": true},
                       "targetRef": {"kind": "Pod", "name": format!("pod-{number}"), "namespace": "bookinfo",
                                     "uid": self.pod_uid(number)}})
            })
            .collect();
        let ports: Vec<Value> =
            self.ports.iter().map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "bookinfo", "resourceVersion": "1",
                         "labels": {"kubernetes.io/service-name": "productpage"}},
            "addressType": if v4 { "IPv4" } else { "IPv6" }, "endpoints": endpoints, "ports": ports,
        })
    }

    fn pod_object(&self, name: &str) -> Option<Value> {
        let (number, uid) = self.pod(name)?;
        let ports: Vec<Value> =
            self.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port})).collect();
        Some(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "bookinfo", "uid": uid, "labels": {"app": "productpage"}},
            "spec": {"nodeName": "cp1", "containers": [{"name": "app", "image": "app", "ports": ports}]},
            "status": {"phase": "Running", "podIP": self.pods[number]},
        }))
    }

    /// The answer to a get or list.
    pub fn answer(&self, path: &str) -> (u16, Value) {
        let list = |kind: &str, version: &str, items: Vec<Value>| {
            let metadata = json!({"resourceVersion": self.changes.len().to_string()});
            (200, json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}))
        };
        let namespace = |name: &str, uid: &str| json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "uid": uid}});
        let resource = |name: &str, kind: &str| {
            json!({"name": name, "singularName": "", "namespaced": true,
                                                       "kind": kind, "verbs": ["get", "list", "create"]})
        };
        match path {
            // As much of discovery as kubectl needs to find pods and Services.
            "/api" => (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
            "/apis" => (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
            "/api/v1" => {
                let resources = [resource("pods", "Pod"), resource("services", "Service")];
                (200, json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources}))
            }
            "/api/v1/namespaces/kube-system" => (200, namespace("kube-system", &self.uid)),
            "/api/v1/namespaces" => {
                list("NamespaceList", "v1", vec![namespace("kube-system", &self.uid), namespace("bookinfo", "b")])
            }
            SERVICES | "/api/v1/services" => list("ServiceList", "v1", self.service.iter().cloned().collect()),
            SLICES => list("EndpointSliceList", "discovery.k8s.io/v1", self.slices().into()),
            _ if path == format!("{SERVICES}/productpage") && self.service.is_some() => {
                (200, self.service.clone().unwrap_or_default())
            }
            "/api/v1/nodes" => {
                let status = json!({"addresses": [{"type": "InternalIP", "address": self.node}]});
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "cp1"}, "status": status});
                list("NodeList", "v1", vec![node])
            }
            _ if path.ends_with("/deployments") => list("DeploymentList", "apps/v1", vec![]),
            _ => match path.strip_prefix(PODS).and_then(|name| self.pod_object(name)) {
                Some(pod) => (200, pod),
                None => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                        "message": "not found", "reason": "NotFound", "code": 404});
                    (404, status)
                }
            },
        }
    }
}
