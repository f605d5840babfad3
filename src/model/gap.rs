//! What could not be observed, and why. A gap is data: never an error, never silence.

use serde::{Deserialize, Serialize};

/// The parts of a Snapshot that checks declare as their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    Services,
    EndpointSlices,
    Pods,
    Deployments,
    Nodes,
    Namespaces,
    Events,
    /// What a container said before it crashed.
    PodLogs,
    NetworkPolicies,
    /// The DaemonSet, ConfigMap and pods of kube-proxy in kube-system.
    KubeProxy,
    /// The leader leases of kube-controller-manager and kube-scheduler.
    Leases,
    /// Endpoints objects, of Services whose endpoints are written by hand.
    Endpoints,
    /// The pods of the API server, whose arguments say which nodePorts it allows.
    ApiServer,
    /// A dial of the address from where the command runs.
    ClientProbe,
    /// A dial through a network namespace of its own on this node (root only).
    OutsiderProbe,
    /// The API server's proxy to a pod.
    PodProxy,
    /// The API server's proxy to a node's port.
    NodeProxy,
    /// Port-forward, which dials localhost inside the pod.
    PortForward,
    /// kube-proxy's rules on this node (root only).
    Rules,
    /// Routes, sysctls and sockets of this node (root only).
    NodeSettings,
    /// The firewall rules of this node (root only).
    Firewall,
    /// How fast the API server answers, and what its clock says.
    Answering,
    /// A request through the HTTP proxy that the environment names.
    HttpProxy,
    /// The API server's way to a node's kubelet, as logs and port-forward take it.
    Kubelet,
    /// Dials from a pod of ours on the node that the address leads to; only with `--probe-pod`.
    ProbePod,
    /// Policies that are no NetworkPolicies: of the CNI, and of admission.
    OtherPolicies,
}

/// Why an input is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum GapReason {
    /// RBAC said no.
    Denied { verb: String, resource: String },
    /// The API server does not take the credentials any more (401).
    Unauthorized,
    /// Only root on a node sees it.
    NotRoot,
    /// The command does not run on a node of this cluster.
    NotOnNode,
    /// A program of the node is missing.
    NoProgram { program: String },
    /// It did not answer in time.
    Timeout,
    /// Nothing to look at, e.g. no pod to forward to.
    NothingThere,
    /// Anything else, in the words of who failed.
    Failed { message: String },
}

/// One input that is missing, wholly or for one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    pub input: Input,
    /// What it was about, e.g. a pod's name; none for the whole input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(flatten)]
    pub reason: GapReason,
}
