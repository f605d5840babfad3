//! The applications: the shipped manifests with their images replaced, varied by kustomize.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;

pub const NAMESPACE: &str = "bookinfo";
pub const GRAFANA_NAMESPACE: &str = "monitoring";
/// The nodePorts of the shipped manifests.
pub const PORT: u16 = 30080;
pub const GRAFANA_PORT: u16 = 30300;
/// The image that `cluster up` loads into every node.
const IMAGE: &str = "bookaccess.local/standin";
/// As pods name it.
pub const IMAGE_TAGGED: &str = "bookaccess.local/standin:1";
const READY_LIMIT: &str = "60s";

/// Where the page's pod is put.
#[derive(Debug, Clone, PartialEq)]
pub enum Pin {
    /// As shipped: on the control plane.
    ControlPlane,
    /// On a named node.
    Node(String),
    /// On the nodes that are no control plane, as evenly as its replicas allow.
    Workers,
}

/// How a scenario wants Bookinfo.
#[derive(Debug, Clone)]
pub struct Bookinfo {
    pub pin: Pin,
    /// Details, reviews and ratings as well, not the page alone.
    pub parts: bool,
    /// `type: ClusterIP` and no nodePort, as upstream's.
    pub cluster_ip: bool,
    /// The page's Service has an address of each family that the cluster has.
    pub both_families: bool,
    /// How many pods the page has.
    pub replicas: u8,
    /// The page's probes, as shipped; without them its pods are ready at once, as upstream's are.
    pub probes: bool,
    /// Environment of the page's application: what the stand-in does differently.
    pub env: Vec<(&'static str, String)>,
    /// Further operations (RFC 6902) on the page's Deployment, its first container being [`CONTAINER`].
    pub edits: Vec<Value>,
}

impl Default for Bookinfo {
    fn default() -> Self {
        Self {
            pin: Pin::ControlPlane,
            parts: false,
            cluster_ip: false,
            both_families: false,
            replicas: 1,
            probes: true,
            env: Vec::new(),
            edits: Vec::new(),
        }
    }
}

impl Bookinfo {
    /// The page alone, as shipped.
    pub fn page() -> Self {
        Self::default()
    }

    /// With details, reviews and ratings.
    pub fn with_parts(self) -> Self {
        Self { parts: true, ..self }
    }

    /// Its Service is reached by IPv6 as well, where the cluster has it.
    pub fn by_both_families(self) -> Self {
        Self { both_families: true, ..self }
    }

    pub fn on(self, node: &str) -> Self {
        Self { pin: Pin::Node(node.to_owned()), ..self }
    }

    /// So many pods, on the workers.
    pub fn spread(self, replicas: u8) -> Self {
        Self { pin: Pin::Workers, replicas, ..self }
    }

    /// Without the probes that would show a fault of its own.
    pub fn bare(self) -> Self {
        Self { probes: false, ..self }
    }

    /// With one more variable in the environment of the page's application.
    pub fn env(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.push((name, value.to_string()));
        self
    }

    /// Listens on loopback only, and has no probes that would show it.
    pub fn on_loopback(self) -> Self {
        self.bare().env("LISTEN", "127.0.0.1:9080")
    }

    /// The page's application takes this long to start.
    pub fn slow_by(self, milliseconds: u32) -> Self {
        self.env("START_DELAY_MS", milliseconds)
    }

    /// With one more operation on the page's Deployment.
    pub fn edit(mut self, operation: Value) -> Self {
        self.edits.push(operation);
        self
    }

    /// Applies it and waits until every pod is ready.
    pub fn apply(&self, cluster: &Cluster) -> Result<()> {
        self.start(cluster)?;
        wait_ready(cluster, NAMESPACE)
    }

    /// Applies it without waiting.
    pub fn start(&self, cluster: &Cluster) -> Result<()> {
        cluster.apply(&self.manifest(cluster)?)
    }

    /// The shipped manifest as this scenario wants it.
    pub fn manifest(&self, cluster: &Cluster) -> Result<String> {
        let mut patches = Vec::new();
        for name in ["details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1"] {
            let role = name.strip_suffix("-v1").filter(|_| name != "reviews-v1").unwrap_or(name);
            let mut env = vec![json!({"name": "ROLE", "value": role})];
            if name == "productpage-v1" {
                env.extend(self.env.iter().map(|(name, value)| json!({"name": name, "value": value})));
            }
            patches.push(deployment_patch(name, stand_in(env)));
        }
        if self.pin != Pin::ControlPlane {
            let (path, value) = match &self.pin {
                Pin::Node(node) => ("nodeSelector", json!({"kubernetes.io/hostname": node})),
                _ => ("topologySpreadConstraints", evenly()),
            };
            let spec = json!([
                {"op": "remove", "path": "/spec/template/spec/nodeSelector"},
                {"op": "remove", "path": "/spec/template/spec/tolerations"},
                {"op": "add", "path": format!("/spec/template/spec/{path}"), "value": value},
                {"op": "replace", "path": "/spec/replicas", "value": self.replicas},
            ]);
            patches.push(deployment_patch("productpage-v1", spec));
        }
        if !self.probes {
            let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
            let removals = probes.map(|probe| json!({"op": "remove", "path": format!("{CONTAINER}/{probe}")}));
            patches.push(deployment_patch("productpage-v1", json!(removals)));
        }
        if !self.edits.is_empty() {
            patches.push(deployment_patch("productpage-v1", json!(self.edits)));
        }
        if self.cluster_ip {
            let spec = json!([
                {"op": "remove", "path": "/spec/type"},
                {"op": "remove", "path": "/spec/ports/0/nodePort"},
            ]);
            patches.push(json!({"target": {"kind": "Service", "name": "productpage"}, "patch": spec.to_string()}));
        }
        if self.both_families {
            let spec = json!([{"op": "add", "path": "/spec/ipFamilyPolicy", "value": "PreferDualStack"}]);
            patches.push(json!({"target": {"kind": "Service", "name": "productpage"}, "patch": spec.to_string()}));
        }
        if !self.parts {
            for (kind, name) in [("Deployment", "(details|ratings|reviews)-v."), ("Service", "details|ratings|reviews")]
            {
                let gone = json!({"$patch": "delete", "apiVersion": "v1", "kind": kind, "metadata": {"name": "any"}});
                patches.push(json!({"target": {"kind": kind, "name": name}, "patch": gone.to_string()}));
            }
        }
        let names = ["details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1"];
        let images = names.map(|name| format!("registry.istio.io/release/examples-bookinfo-{name}"));
        kustomize(cluster, "applications/bookinfo-nodeport.yml", &images, &patches)
    }
}

/// Where a Deployment has its container.
pub const CONTAINER: &str = "/spec/template/spec/containers/0";

/// No node has two pods more than another; nodes that the pods may not run on do not count, nor do those of an older
/// template.
fn evenly() -> Value {
    json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "nodeTaintsPolicy": "Honor", "labelSelector": {"matchLabels": {"app": "productpage"}},
        "matchLabelKeys": ["pod-template-hash"],
    }])
}

fn stand_in(env: Vec<Value>) -> Value {
    json!([
        {"op": "add", "path": format!("{CONTAINER}/env"), "value": env},
        {"op": "replace", "path": format!("{CONTAINER}/imagePullPolicy"), "value": "Never"},
    ])
}

fn deployment_patch(name: &str, operations: Value) -> Value {
    json!({"target": {"kind": "Deployment", "name": name}, "patch": operations.to_string()})
}

/// Applies Grafana as shipped, or as a ClusterIP Service, and waits until it is ready.
pub fn apply_grafana(cluster: &Cluster, cluster_ip: bool) -> Result<()> {
    let mut patches = vec![deployment_patch("grafana", stand_in(vec![json!({"name": "ROLE", "value": "grafana"})]))];
    if cluster_ip {
        let spec = json!([{"op": "remove", "path": "/spec/type"}, {"op": "remove", "path": "/spec/ports/0/nodePort"}]);
        patches.push(json!({"target": {"kind": "Service", "name": "grafana"}, "patch": spec.to_string()}));
    }
    let images = ["grafana/grafana".to_owned()];
    cluster.apply(&kustomize(cluster, "observability/grafana-nodeport.yml", &images, &patches)?)?;
    wait_ready(cluster, GRAFANA_NAMESPACE)
}

/// A shipped manifest, its images replaced and the patches applied, by `kubectl kustomize`.
fn kustomize(cluster: &Cluster, manifest: &str, images: &[String], patches: &[Value]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(manifest);
    std::fs::copy(&source, folder.path().join("shipped.yml"))
        .with_context(|| format!("cannot copy {}", source.display()))?;
    let images: Vec<_> = images.iter().map(|name| json!({"name": name, "newName": IMAGE, "newTag": "1"})).collect();
    // YAML contains JSON.
    let kustomization = json!({"resources": ["shipped.yml"], "images": images, "patches": patches});
    std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string())?;
    let output = Command::new(cluster.bin.join("kubectl")).arg("kustomize").arg(folder.path()).output()?;
    ensure!(output.status.success(), "kustomize: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("kustomize")
}

/// Waits until every Deployment of the namespace is rolled out.
pub fn wait_ready(cluster: &Cluster, namespace: &str) -> Result<()> {
    let timeout = format!("--timeout={READY_LIMIT}");
    cluster
        .kubectl(&["rollout", "status", "deployment", "-n", namespace, &timeout])
        .map(drop)
        .with_context(|| pods(cluster, namespace))
}

/// The pods and last events of a namespace, for a failure's message.
pub fn pods(cluster: &Cluster, namespace: &str) -> String {
    let read = |args: &[&str]| cluster.kubectl(args).unwrap_or_else(|e| format!("{e:#}"));
    let pods = read(&["get", "pods", "-n", namespace, "-o", "wide"]);
    let events = read(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
    let tail: Vec<_> = events.lines().rev().take(12).collect();
    format!("{pods}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

/// Empties both namespaces, quickly: a deleted namespace takes 5 s at least to go, its content less.
pub fn remove(cluster: &Cluster) -> Result<()> {
    for namespace in [NAMESPACE, GRAFANA_NAMESPACE] {
        let gone = cluster.kubectl(&["get", "namespace", namespace, "--ignore-not-found", "-o", "name"])?;
        if gone.trim().is_empty() {
            continue;
        }
        let kinds = "deployments,replicasets,services,endpoints,leases,networkpolicies,resourcequotas";
        cluster.kubectl(&["delete", kinds, "--all", "-n", namespace, "--cascade=background", "--wait=false"])?;
        cluster.kubectl(&["delete", "configmap", "bookaccess-journal", "-n", namespace, "--ignore-not-found"])?;
        cluster.kubectl(&["delete", "pods", "--all", "-n", namespace, "--grace-period=1", "--timeout=45s"])?;
        cluster.kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce-"])?;
    }
    Ok(())
}
