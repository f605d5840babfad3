//! A large cluster as a Snapshot file, made up: the same for the same numbers, and never checked in.
//!
//! The objects are shaped as kubeadm and the controllers make them and as `diagnose --save` writes them, and every
//! hundredth target is broken. Written object by object, so that making it takes no memory.

use std::io::{self, Write};

use serde_json::{Value, json};

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub nodes: usize,
    pub services: usize,
    pub pods: usize,
    /// Services of one namespace.
    pub crowd: usize,
}

/// The most that Kubernetes is tested for by its own people (sig-scalability, thresholds).
pub const LARGEST: Size = Size { nodes: 5_000, services: 10_000, pods: 150_000, crowd: 20 };

/// A nodePort each: there are 2,768 of them by default, so that one Service in four has one.
const NODE_PORTS: usize = 2_700;
const MADE: &str = "2026-11-23T09:00:00Z";
const NOW: &str = "2026-11-23T12:00:00Z";
/// Where the kubeconfig leads to.
const ADDRESS: &str = "203.0.113.10";

/// What is wrong with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Selector,
    TargetPort,
    Readiness,
    CrashLoop,
}

impl Size {
    /// This many times as much of everything.
    #[must_use]
    pub fn times(self, factor: usize) -> Self {
        Self { nodes: self.nodes * factor, services: self.services * factor, pods: self.pods * factor, ..self }
    }

    /// How many targets `diagnose -A` has in it.
    pub fn targets(self) -> usize {
        (self.services / 4).min(NODE_PORTS)
    }

    /// How many of them are broken.
    pub fn broken(self) -> usize {
        (0..self.services).filter(|i| self.node_port(*i).is_some() && fault(*i).is_some()).count()
    }

    /// Writes the Snapshot.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        let indices = || (0..self.services).filter(|i| self.node_port(*i).is_some());
        write!(out, "{{\"version\":1,\"takenAt\":\"{NOW}\",\"cluster\":\"7d3c0a1e-uid\",")?;
        write!(out, "\"stand\":{{\"root\":false,\"server\":\"{ADDRESS}:6443\"}},")?;
        list(out, "targets", indices().map(|i| self.target(i)))?;
        let own = std::iter::once(json!({"ip": ADDRESS, "source": "kubeconfig"}));
        let internal = (0..self.nodes).map(|n| json!({"ip": ip(n), "source": "internalIp", "node": node_name(n)}));
        list(out, ",addresses", own.chain(internal))?;
        write!(out, ",\"objects\":{{")?;
        list(out, "services", (0..self.services).map(|i| self.service(i)))?;
        list(out, ",endpointSlices", (0..self.services).map(|i| self.slice(i)))?;
        list(out, ",pods", (0..self.pods).map(|p| self.pod(p)))?;
        list(out, ",deployments", (0..self.services).map(|i| self.deployment(i)))?;
        list(out, ",nodes", (0..self.nodes).map(node))?;
        list(
            out,
            ",namespaces",
            (0..self.services).step_by(self.crowd).map(|i| json!({"metadata": {"name": self.namespace(i)}})),
        )?;
        list(out, ",events", indices().filter(|i| fault(*i) == Some(Fault::Readiness)).map(|i| self.event(i)))?;
        list(out, ",networkPolicies", std::iter::empty())?;
        list(out, ",daemonSets", std::iter::once(self.daemon_set()))?;
        list(out, ",kubeProxyPods", (0..self.nodes).map(kube_proxy))?;
        write!(out, "}},")?;
        list(out, "probes", indices().flat_map(|i| self.probes(i)))?;
        let gap = |input: &str| json!({"input": input, "reason": "notOnNode"});
        list(out, ",gaps", ["outsiderProbe", "rules", "nodeSettings"].into_iter().map(gap))?;
        writeln!(out, "}}")
    }

    /// The objects of one kind, by the name of its resource; none of a kind that is not here.
    pub fn objects(self, resource: &str) -> Vec<Value> {
        match resource {
            "services" => (0..self.services).map(|i| self.service(i)).collect(),
            "endpointslices" => (0..self.services).map(|i| self.slice(i)).collect(),
            "pods" => (0..self.pods).map(|p| self.pod(p)).chain((0..self.nodes).map(kube_proxy)).collect(),
            "deployments" => (0..self.services).map(|i| self.deployment(i)).collect(),
            "nodes" => (0..self.nodes).map(node).collect(),
            "namespaces" => {
                let teams = (0..self.services).step_by(self.crowd).map(|i| self.namespace(i));
                let own = std::iter::once("kube-system".to_owned());
                own.chain(teams).map(|name| json!({"metadata": {"name": name, "uid": "7d3c0a1e-uid"}})).collect()
            }
            "daemonsets" => vec![self.daemon_set()],
            _ => Vec::new(),
        }
    }

    /// Services with a nodePort stand among the others, in every namespace.
    fn node_port(self, service: usize) -> Option<usize> {
        (service.is_multiple_of(4) && service / 4 < NODE_PORTS).then_some(30_000 + service / 4)
    }

    fn target(self, i: usize) -> Value {
        json!({
            "namespace": self.namespace(i), "service": app(i), "nodePort": self.node_port(i), "path": "/",
            "named": false,
        })
    }

    fn service(self, i: usize) -> Value {
        let mut port = json!({"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"});
        if let Some(number) = self.node_port(i) {
            port["nodePort"] = json!(number);
        }
        let typo = if fault(i) == Some(Fault::Selector) { "x" } else { "" };
        if fault(i) == Some(Fault::TargetPort) {
            port["targetPort"] = json!("htpp");
        }
        let cluster_ip = format!("10.{}.{}.{}", 96 + i / 65_536, i / 256 % 256, i % 256);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": metadata(&self.namespace(i), &app(i), json!({"app": app(i)})),
            "spec": {
                "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "externalTrafficPolicy": "Cluster",
                "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [port], "selector": {"app": format!("{}{typo}", app(i))}, "sessionAffinity": "None",
                "type": if self.node_port(i).is_some() { "NodePort" } else { "ClusterIP" },
            },
            "status": {"loadBalancer": {}},
        })
    }

    fn namespace(self, service: usize) -> String {
        format!("team-{:04}", service / self.crowd)
    }

    /// The pods of a Service, which a Deployment of its own makes.
    fn pods_of(self, i: usize) -> impl Iterator<Item = usize> {
        (i..self.pods).step_by(self.services)
    }

    fn slice(self, i: usize) -> Value {
        let ready = fault(i).is_none_or(|f| f == Fault::TargetPort);
        let endpoint = |p: usize| {
            json!({
                "addresses": [self.pod_ip(p)], "nodeName": node_name(p % self.nodes),
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "targetRef": {
                    "kind": "Pod", "name": self.pod_name(p), "namespace": self.namespace(i), "uid": uid("pod", p),
                },
            })
        };
        let none = fault(i) == Some(Fault::Selector);
        let endpoints: Vec<Value> = self.pods_of(i).filter(|_| !none).map(endpoint).collect();
        let port = if fault(i) == Some(Fault::TargetPort) {
            json!([])
        } else {
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
        };
        let labels = json!({
            "app": app(i), "kubernetes.io/service-name": app(i),
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        });
        json!({
            "addressType": "IPv4", "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "endpoints": endpoints, "ports": port,
            "metadata": metadata(&self.namespace(i), &format!("{}-x7k2p", app(i)), labels),
        })
    }

    /// The n-th pod of its node.
    fn pod_ip(self, p: usize) -> String {
        let on = p % self.nodes;
        format!("10.{}.{}.{}", on / 256, on % 256, 2 + p / self.nodes % 250)
    }

    fn pod_name(self, p: usize) -> String {
        format!("{}-7d8c9f6b5d-{:05}", app(p % self.services), p / self.services)
    }

    /// Whether a target of this namespace selects no pod, so that `--save` keeps all of them whole.
    fn is_whole(self, namespace: usize) -> bool {
        let services = namespace * self.crowd..((namespace + 1) * self.crowd).min(self.services);
        services.into_iter().any(|i| fault(i) == Some(Fault::Selector))
    }

    /// A pod that no target selects, as `--save` writes it.
    fn other_pod(self, p: usize) -> Value {
        let i = p % self.services;
        json!({
            "metadata": {
                "name": self.pod_name(p), "namespace": self.namespace(i), "creationTimestamp": MADE,
                "labels": pod_labels(i),
            },
            "spec": {"nodeName": node_name(p % self.nodes), "containers": []},
            "status": {"phase": "Running", "podIP": self.pod_ip(p)},
        })
    }

    fn pod(self, p: usize) -> Value {
        let i = p % self.services;
        if self.node_port(i).is_none() && !self.is_whole(i / self.crowd) {
            return self.other_pod(p);
        }
        let bad = fault(i).filter(|f| matches!(f, Fault::Readiness | Fault::CrashLoop));
        let ready = if bad.is_none() { "True" } else { "False" };
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": MADE});
        let state = if bad == Some(Fault::CrashLoop) {
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}})
        } else {
            json!({"running": {"startedAt": MADE}})
        };
        let ip = self.pod_ip(p);
        let mut metadata = metadata(&self.namespace(i), &self.pod_name(p), pod_labels(i));
        metadata["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{}-7d8c9f6b5d", app(i)),
            "uid": uid("rs", i),
            "controller": true, "blockOwnerDeletion": true,
        }]);
        let mut spec = pod_spec(i);
        spec["nodeName"] = json!(node_name(p % self.nodes));
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
            "status": {
                "conditions": [
                    condition("PodReadyToStartContainers", "True"), condition("Initialized", "True"),
                    condition("Ready", ready),
                    condition("ContainersReady", ready), condition("PodScheduled", "True"),
                ],
                "containerStatuses": [{
                    "name": "app", "image": image(i), "imageID": image(i),
                    "containerID": format!("containerd://{p:064x}"),
                    "ready": bad.is_none(), "started": bad.is_none(),
                    "restartCount": if bad == Some(Fault::CrashLoop) { 9 } else { 0 },
                    "state": state,
                }],
                "hostIP": self::ip(p % self.nodes), "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "qosClass": "Burstable", "startTime": MADE,
            },
        })
    }

    fn deployment(self, i: usize) -> Value {
        let wanted = self.pods_of(i).count();
        let ready = if fault(i).is_some_and(|f| matches!(f, Fault::Readiness | Fault::CrashLoop)) { 0 } else { wanted };
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": metadata(&self.namespace(i), &app(i), json!({"app": app(i)})),
            "spec": {
                "replicas": wanted, "selector": {"matchLabels": {"app": app(i)}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"metadata": {"labels": {"app": app(i), "version": "v1"}}, "spec": pod_spec(i)},
            },
            "status": {
                "observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": ready,
                "availableReplicas": ready,
            },
        })
    }

    fn event(self, i: usize) -> Value {
        json!({
            "metadata": {"name": format!("{}.18a", app(i)), "namespace": self.namespace(i)},
            "type": "Warning", "reason": "Unhealthy",
            "message": "Readiness probe failed: HTTP probe failed with statuscode: 503", "lastTimestamp": NOW,
            "involvedObject": {"kind": "Pod", "namespace": self.namespace(i), "name": self.pod_name(i)},
        })
    }

    fn daemon_set(self) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": metadata("kube-system", "kube-proxy", json!({"k8s-app": "kube-proxy"})),
            "spec": {
                "selector": {"matchLabels": {"k8s-app": "kube-proxy"}},
                "template": {"metadata": {"labels": {"k8s-app": "kube-proxy"}}, "spec": {
                    "hostNetwork": true, "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "kube-proxy", "image": "kube-proxy:v1.34.4"}],
                }},
            },
            "status": {
                "currentNumberScheduled": self.nodes, "desiredNumberScheduled": self.nodes, "numberMisscheduled": 0,
                "numberReady": self.nodes, "observedGeneration": 1,
            },
        })
    }

    /// Six dials of each target, as a look at many addresses makes them.
    fn probes(self, i: usize) -> Vec<Value> {
        let target = format!("{}/{}", self.namespace(i), app(i));
        let (broken, port) = (fault(i).is_some(), self.node_port(i));
        let dial = |host: &str| {
            let mut probe = json!({
                "vantage": "client", "target": target, "host": host, "port": port, "outcome": "timeout", "millis": 3500,
            });
            if host == ADDRESS && !broken {
                probe["outcome"] = json!("http");
                probe["status"] = json!(200);
                probe["right"] = json!(true);
            } else if host == ADDRESS {
                probe["outcome"] = json!("refused");
            }
            probe
        };
        let others = (0..self.nodes.min(5)).map(|n| dial(&ip(n)));
        std::iter::once(dial(ADDRESS)).chain(others).collect()
    }
}

/// Every hundredth target has a fault, of each kind in turn.
fn fault(service: usize) -> Option<Fault> {
    let kinds = [Fault::Selector, Fault::TargetPort, Fault::Readiness, Fault::CrashLoop];
    (service % 400 == 200).then(|| kinds[service / 400 % kinds.len()])
}

fn list(out: &mut impl Write, name: &str, items: impl Iterator<Item = Value>) -> io::Result<()> {
    let (comma, name) = name.strip_prefix(',').map_or(("", name), |name| (",", name));
    write!(out, "{comma}\"{name}\":[")?;
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, &item)?;
    }
    out.write_all(b"]")
}

fn app(service: usize) -> String {
    format!("shop-{service:05}")
}

fn node_name(n: usize) -> String {
    format!("ip-{}", ip(n).replace('.', "-"))
}

fn ip(n: usize) -> String {
    format!("172.{}.{}.{}", 16 + n / 62_500, n / 250 % 250, 1 + n % 250)
}

fn image(service: usize) -> String {
    format!("images.example.com/shop/service-{service:05}:1.20.3")
}

fn uid(kind: &str, n: usize) -> String {
    format!("{kind}-0a1b-4c2d-9e3f-{n:012}")
}

fn metadata(namespace: &str, name: &str, labels: Value) -> Value {
    json!({
        "name": name, "namespace": namespace, "labels": labels, "creationTimestamp": MADE, "generation": 1,
        "resourceVersion": "123456789", "uid": format!("{name}-0a1b-4c2d-9e3f"),
    })
}

fn pod_labels(service: usize) -> Value {
    json!({"app": app(service), "pod-template-hash": "7d8c9f6b5d", "version": "v1"})
}

fn pod_spec(service: usize) -> Value {
    let probe = |path: &str| {
        json!({
            "httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1,
            "successThreshold": 1, "failureThreshold": 3,
        })
    };
    json!({
        "containers": [{
            "name": "app", "image": image(service), "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "readinessProbe": probe("/ready"), "livenessProbe": probe("/live"),
        }],
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
        "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
    })
}

fn node(n: usize) -> Value {
    let mut metadata = json!({"name": node_name(n), "labels": {
        "kubernetes.io/hostname": node_name(n), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": format!("zone-{}", n % 3),
    }, "creationTimestamp": MADE, "uid": uid("node", n), "resourceVersion": "123456789"});
    let mut spec = json!({"podCIDR": format!("10.{}.{}.0/24", n / 256, n % 256)});
    spec["podCIDRs"] = json!([spec["podCIDR"]]);
    if n < 3 {
        metadata["labels"]["node-role.kubernetes.io/control-plane"] = json!("");
        spec["taints"] = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    }
    json!({
        "metadata": metadata, "spec": spec,
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip(n)}, {"type": "Hostname", "address": node_name(n)}],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
            }],
            "nodeInfo": {"kubeletVersion": "v1.34.4", "osImage": "Ubuntu 24.04", "kernelVersion": "6.8.0"},
            "capacity": {"cpu": "16", "memory": "65000000Ki", "pods": "110"},
        },
    })
}

fn kube_proxy(n: usize) -> Value {
    json!({
        "metadata": metadata("kube-system", &format!("kube-proxy-{n:05}"), json!({"k8s-app": "kube-proxy"})),
        "spec": {
            "nodeName": node_name(n), "hostNetwork": true,
            "containers": [{"name": "kube-proxy", "image": "kube-proxy:v1.34.4"}],
        },
        "status": {
            "phase": "Running", "podIP": ip(n), "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "kube-proxy", "image": "kube-proxy:v1.34.4", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": MADE}},
            }],
        },
    })
}
