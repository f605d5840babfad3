//! What will be done: ordered steps, each complete before anything runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Code, NodeSetting, ObjectRef, Text};

/// How deep a step reaches (design: T0 tell … T6 the cloud).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// Only told.
    T0,
    /// Adds an object, or a fallback on this machine.
    T1,
    /// The target's Service.
    T2,
    /// The target's workload.
    T3,
    /// A system component.
    T4,
    /// This node's settings.
    T5,
    /// The cloud; only printed.
    T6,
}

/// What `--allow` grants beyond consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    System,
    Node,
    Policy,
    Workload,
}

/// The actions there are; each has a file under `plan/actions/` and a text under `locales/actions/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionName {
    /// Opens the fallback path on this machine.
    OpenForward,
    ServiceNodePort,
    TargetPort,
    Selector,
    TrafficPolicy,
    Scale,
    PinToControlPlane,
    HostPort,
    WakeKubeProxy,
    ScheduleKubeProxy,
    RestartKubeProxy,
    /// Restores the route between the nodes.
    RestoreRoute,
    /// Told only: open the port in the security group.
    OpenSecurityGroup,
    /// Told only: make the workload healthy (image, crash, readiness, listen address).
    MendWorkload,
    /// Creates the Service that is missing; told where it is not obvious which.
    CreateService,
    /// Told only: install or repair kube-proxy by kubeadm.
    InstallKubeProxy,
    /// Told only: bring the node back.
    MendNode,
    /// A NodePort Service beside one that cannot be patched.
    SiblingService,
    SessionAffinity,
    ServiceProxyName,
    Protocol,
    ExchangeNodePorts,
    MirrorEndpoints,
    IpFamily,
    /// Told only: whom the Service admits.
    SourceRanges,
    /// A NetworkPolicy that admits browsers to the page's port.
    AdmitOutside,
    RolloutUndo,
    Unpin,
    Uncordon,
    ConfigureKubeProxy,
    BindKubeProxy,
    /// Changes a setting of this node's kernel.
    SetKernel,
    /// Lets the page's packets through a firewall of this node.
    AcceptOnNode,
    /// Told only: make room for more connections to be tracked.
    RaiseConntrack,
    /// Told only: mend the network between the nodes.
    MendPodNetwork,
    /// Makes connections through this node to the pods ask for small packets.
    ClampSegments,
}

/// One field, before and after. `None` is absence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// JSON pointer (RFC 6901).
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// The primitive a step is made of. Its inverse follows from the data it carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "act")]
pub enum Act {
    /// Changes fields of one object. Inverse: the same with `from` and `to` swapped.
    Patch { object: ObjectRef, uid: String, changes: Vec<Change> },
    /// Creates a selectorless throw-away Service and deletes it at once, which makes kube-proxy write its rules. Inverse: nothing is left.
    Wake { namespace: String },
    /// Deletes one pod that its DaemonSet makes anew. Inverse: none is needed.
    DeletePod { object: ObjectRef, uid: String },
    /// Starts the fallback forwarder in the background. Inverse: stops it.
    Forward {
        namespace: String,
        service: String,
        /// Where it listens: the nodePort on the node, or a local port.
        listen_port: u16,
        /// Address it binds; on a node the node's own, elsewhere loopback.
        listen_address: std::net::IpAddr,
        /// Whether it may lead the NodePort to itself by rules of its own (root on the node).
        front: bool,
        /// The outsider probe gets through where others do not: the node's firewall stops strangers, or a replica fails
        /// those that it gets. The listener, always in front, is the only way for all.
        #[serde(default)]
        around: bool,
        /// Through the API server alone: what the pods send to this host directly does not arrive whole.
        #[serde(default)]
        tunnel: bool,
    },
    /// Creates an object; then restarts the pod that waits for it, if any. Inverse: deletes the object by its uid, while
    /// it is as it was created.
    Create {
        object: ObjectRef,
        manifest: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restart: Option<Restart>,
    },
    /// Changes the ConfigMap that a DaemonSet's pods read when they start, and restarts one of them. Inverse: the old
    /// text, and a restart of every pod of that DaemonSet.
    Configure { object: ObjectRef, uid: String, changes: Vec<Change>, daemon_set: ObjectRef, restart: Restart },
    /// Only printed.
    Tell,
    /// Changes settings of the node that this command runs on, in this order, until its next start. Inverse: their
    /// inverses, last first.
    Node { node: String, settings: Vec<NodeSetting> },
}

/// A pod that its DaemonSet makes anew when it is deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    pub pod: ObjectRef,
    pub uid: String,
}

/// How a step is known to have worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verify {
    /// The finding that caused the step is gone in a new look.
    Cleared,
    /// The page answers at its address, around our own fallback.
    Reachable,
    /// The forwarder's own listener answers with the right page.
    Forwarding,
    /// Nothing to verify: it was only told.
    Nothing,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub name: ActionName,
    pub tier: Tier,
    /// `namespace/service` of the target.
    pub target: String,
    /// The finding that asked for it.
    pub cause: Code,
    #[serde(flatten)]
    pub act: Act,
    pub verify: Verify,
    /// Arguments of `action.<name>.does` and `.undoes`.
    pub args: BTreeMap<String, String>,
    /// The command a person would run for the same effect.
    pub command: String,
    /// The command that takes it back.
    pub undo: String,
}

/// A step that is not taken, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    pub step: Step,
    /// The grant that would permit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Allow>,
    /// Why it is withheld.
    pub why: Text,
}

/// The plan is the dry run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub steps: Vec<Step>,
    pub withheld: Vec<Withheld>,
    /// Remarks for the reader, such as a Helm owner that may undo a change.
    pub notes: Vec<Text>,
}
