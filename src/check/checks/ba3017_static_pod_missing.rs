//! BA3017: RKE2's kube-proxy is a static pod of each node, and the node that browsers dial has none.

use crate::check::{Check, Hop, rules_lead_right, where_it_hurts};
use crate::facts::proxy::{Kind, Proxy};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3017),
    slug: "static-pod-missing",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::KubeProxy, Input::Nodes],
    either: &[],
    // The agent of that node writes its manifest.
    remedies: &[],
    explains: &[Code(3018), Code(3019), Code(3020), Code(3022), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (proxy, snapshot) = (&facts.proxy, facts.snapshot);
    if proxy.kind != Kind::Embedded || Proxy::may_be_replaced(snapshot) || Proxy::disabled(snapshot).is_some() {
        return Vec::new();
    }
    let dialled = target.reach.node.and_then(|n| facts.node(n));
    let Some(dialled) = dialled.filter(|n| node::flavour(n).starts_with("rke2") && node::is_ready(n)) else {
        return Vec::new();
    };
    let name = node::name(dialled);
    if proxy.pods.contains_key(name) || target.exposed().is_none() {
        return Vec::new();
    }
    let leads = rules_lead_right(facts, target);
    let severity = if leads == Some(true) { Severity::Warning } else { where_it_hurts(target) };
    // Where other nodes have theirs, it is known how they are named here.
    let elsewhere = !proxy.pods.is_empty();
    let missing = ObjectRef::namespaced("Pod", "kube-system", &format!("kube-proxy-{name}"));
    let unit = if node::is_control_plane(dialled) { "rke2-server" } else { "rke2-agent" };
    let found = check
        .found(target, ObjectRef::cluster("Node", name))
        .with("node", name)
        .with("unit", unit)
        .severity(severity)
        .confidence(if elsewhere { Confidence::Certain } else { Confidence::Likely });
    vec![found.because(Evidence::Absent { object: missing }).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn rke2(without: &str) -> Sample {
        let mut sample = Sample::healthy();
        for node in sample.objects("nodes").as_array_mut().into_iter().flatten() {
            node["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.34.4+rke2r1");
        }
        *sample.objects("daemonSets") = json!([{"metadata": {"name": "rke2-canal", "namespace": "kube-system"}}]);
        sample.0["objects"]["kubeProxyConfig"] = json!(null);
        if let Some(pods) = sample.objects("kubeProxyPods").as_array_mut() {
            pods.retain(|p| p["spec"]["nodeName"] != without);
        }
        sample
    }

    #[test]
    fn the_dialled_node_needs_its_own() {
        let mut sample = rke2("cp1");
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3017, Severity::Error)]);
        assert_eq!(rke2("cp1").said(), [(3017, Severity::Warning)]);
    }

    #[test]
    fn a_node_that_nobody_dials_is_no_matter() {
        assert_eq!(rke2("w1").said(), []);
        assert_eq!(rke2("none").said(), []);
    }
}
