//! Gives kube-proxy back its right to read the cluster, as kubeadm binds it.

use serde_json::json;

use super::restart_kube_proxy::restart;
use super::{arg, creating};
use crate::facts::proxy::Kind;
use crate::facts::service::MANAGED_BY;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, ObjectRef, Step, Text, Tier};

const BINDING: &str = "kubeadm:node-proxier";
const NAMESPACE: &str = "kube-system";

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let set = facts.proxy.daemon_set.filter(|_| facts.proxy.kind == Kind::DaemonSet);
    let account = set
        .and_then(|d| d.spec.as_ref()?.template.spec.as_ref()?.service_account_name.as_deref())
        .unwrap_or("kube-proxy");
    if set.is_none() {
        return Err(Text::new("action.schedule-kube-proxy.none"));
    }
    let manifest = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": BINDING, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
    });
    let object = ObjectRef::cluster("ClusterRoleBinding", BINDING);
    // It would try again by itself, but only after a minute, or five where it crashes.
    let restart = restart(facts, target)?;
    let (name, tier) = (ActionName::BindKubeProxy, Tier::T4);
    let mut step = creating(name, tier, target, finding, object, manifest, Some(restart));
    arg(&mut step, "binding", BINDING);
    arg(&mut step, "account", format!("{NAMESPACE}/{account}"));
    Ok(step)
}
