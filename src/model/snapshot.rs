//! Everything one look at the cluster saw. All judgement is made from this, and from nothing else.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::{Deserialize, Serialize};

use super::{Address, Gap, Host, Probe, Stand, Target};

/// The version of the Snapshot file's shape.
pub const SNAPSHOT_VERSION: u32 = 1;

/// The API objects read. Lists are empty where nothing is there, and where a Gap says so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Objects {
    /// All Services of the cluster where that may be read (nodePort collisions), else of the targets' namespaces.
    pub services: Vec<Service>,
    /// EndpointSlices of the targets' namespaces.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// Pods of the targets' namespaces.
    pub pods: Vec<Pod>,
    pub deployments: Vec<Deployment>,
    /// ReplicaSets of namespaces where a target's pods do not come up: the revisions that a rollout can go back to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replica_sets: Vec<ReplicaSet>,
    pub nodes: Vec<Node>,
    /// The targets' namespaces, and the names of all others where that may be read.
    pub namespaces: Vec<Namespace>,
    /// Events of the targets' namespaces.
    pub events: Vec<Event>,
    /// NetworkPolicies of the targets' namespaces.
    pub network_policies: Vec<NetworkPolicy>,
    /// Last log lines of a target's crashed containers, of the run that ended, by `namespace/pod`.
    pub crash_logs: std::collections::BTreeMap<String, String>,
    /// DaemonSets of kube-system.
    pub daemon_sets: Vec<DaemonSet>,
    /// Pods of kube-system with k8s-app=kube-proxy.
    pub kube_proxy_pods: Vec<Pod>,
    /// ConfigMap kube-system/kube-proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy_config: Option<ConfigMap>,
    /// Last log lines of a kube-proxy pod that is not running well, by pod name.
    pub kube_proxy_logs: std::collections::BTreeMap<String, String>,
    /// Leases of kube-system by which kube-controller-manager and kube-scheduler show that they live.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// Endpoints objects of the targets' Services that select no pods and have no EndpointSlices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoints>,
    /// Pods of kube-system with component=kube-apiserver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_server_pods: Vec<Pod>,
}

/// One look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub version: u32,
    /// When the look began.
    pub taken_at: Timestamp,
    /// uid of namespace kube-system: the cluster's identity.
    #[serde(default)]
    pub cluster: String,
    pub stand: Stand,
    pub targets: Vec<Target>,
    /// Addresses a browser may dial, best first.
    #[serde(default)]
    pub addresses: Vec<Address>,
    #[serde(default)]
    pub objects: Objects,
    #[serde(default)]
    pub probes: Vec<Probe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    #[serde(default)]
    pub gaps: Vec<Gap>,
}
