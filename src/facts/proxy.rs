//! Which service proxy serves which node, and how it fares.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;

use crate::model::Snapshot;

/// What stands behind Services in this cluster (diagnosis.md §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A kube-proxy DaemonSet in kube-system, as kubeadm makes it.
    DaemonSet,
    /// Inside another process (k3s, MicroK8s) or a static pod (RKE2): no DaemonSet is expected.
    Embedded,
    /// Cilium or Calico eBPF, which need none.
    Replaced,
    /// None was found.
    Absent,
    /// kube-system may not be read.
    Unknown,
}

/// The service proxy of the cluster.
pub struct Proxy<'a> {
    pub kind: Kind,
    pub daemon_set: Option<&'a DaemonSet>,
    /// kube-proxy pods, by the name of the node they run on.
    pub pods: std::collections::BTreeMap<&'a str, &'a Pod>,
}

impl<'a> Proxy<'a> {
    /// Reads the DaemonSets and pods of kube-system, and the nodes' kubelet versions.
    pub fn derive(_snapshot: &'a Snapshot) -> Self {
        Self { kind: Kind::Unknown, daemon_set: None, pods: Default::default() }
    }
}
