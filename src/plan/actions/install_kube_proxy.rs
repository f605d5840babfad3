//! Told: kube-proxy made anew by kubeadm.

use super::told;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, Step, Text, Tier};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    // Built from the cluster's own kubeadm-config, so that the pod network stays what it is.
    let command = "kubectl -n kube-system get configmap kubeadm-config -o jsonpath='{.data.ClusterConfiguration}' > kubeadm.yaml && sudo kubeadm init phase addon kube-proxy --config kubeadm.yaml";
    let undo = "kubectl -n kube-system delete daemonset/kube-proxy configmap/kube-proxy serviceaccount/kube-proxy && kubectl delete clusterrolebinding kubeadm:node-proxier";
    Ok(told(ActionName::InstallKubeProxy, Tier::T4, target, finding, command.to_owned(), undo.to_owned()))
}
