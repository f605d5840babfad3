//! Everything one look at the cluster saw. All judgement is made from this, and from nothing else.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::{Deserialize, Serialize};

use super::pod::Pod;
use super::{Address, Answering, Client, Gap, Host, OWN_PROCESS, Probe, Stand, Target};

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
    /// ConfigMap kube-system/cilium-config, where Cilium runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cilium_config: Option<ConfigMap>,
    /// Policies of Cilium and Calico that concern the targets' namespaces, and those of Gatekeeper and Kyverno that say
    /// something of nodePorts: kind, metadata and spec as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_policies: Vec<serde_json::Value>,
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
    pub client: Client,
    /// None where the API server was not asked, or where a Gap says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<Answering>,
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

/// Seconds by which two clocks may differ in the eyes of one who sees whole seconds and a network between.
const TOLERANCE: u64 = 5;

impl Snapshot {
    /// The addresses of this node's devices; none where root did not look at one.
    pub fn held_addresses(&self) -> &[IpAddr] {
        self.host.as_ref().map(|host| host.addresses.as_slice()).unwrap_or_default()
    }

    /// Whether a forward of ours listens on this port of the node that we stand on.
    pub fn is_ours(&self, port: u16) -> bool {
        self.host.as_ref().and_then(|host| host.listeners.get(&port)).is_some_and(|process| process == OWN_PROCESS)
    }

    /// When the look began by the cluster's clock, by which its objects are dated: this machine's, put right where the
    /// API server's differs.
    pub fn now(&self) -> Timestamp {
        let ahead = self.answering.as_ref().and_then(|a| a.clock_ahead).filter(|s| s.unsigned_abs() > TOLERANCE);
        let right = |seconds| self.taken_at.checked_add(jiff::SignedDuration::from_secs(seconds)).ok();
        ahead.and_then(right).unwrap_or(self.taken_at)
    }
}
