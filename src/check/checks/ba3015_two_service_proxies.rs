//! BA3015: kube-proxy runs, and Cilium serves Services as well: two that each know nothing of what the other did.

use crate::check::{Check, Hop, field};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts, cilium, pod};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3015),
    slug: "two-service-proxies",
    hop: Hop::ServiceProxy,
    // The eBPF programs see the packets first: mostly that goes well.
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy, Input::Nodes],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(cilium) = cilium::cilium(facts.snapshot).filter(|c| c.replaces == Some(true)) else { return Vec::new() };
    let Some(node) = target.reach.node.filter(|n| facts.proxy.kind == Kind::DaemonSet && facts.proxy.runs_on(n)) else {
        return Vec::new();
    };
    let running = i64::try_from(facts.proxy.pods.values().filter(|p| pod::is_running(p)).count()).unwrap_or(i64::MAX);
    let nodes = i64::try_from(facts.snapshot.objects.nodes.len()).unwrap_or(i64::MAX);
    let object = ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy");
    let setting = field(&cilium::config_map(), "data[kube-proxy-replacement]", cilium.replacement.unwrap_or_default());
    let count = Evidence::Count { object: object.clone(), what: "scheduled".to_owned(), have: running, want: nodes };
    vec![check.found(target, object).with("node", node).because(setting).because(count)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn both(replacement: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.add("daemonSets", json!({"metadata": {"name": "cilium", "namespace": "kube-system"}}));
        *sample.objects("ciliumConfig") = json!({"metadata": {"name": "cilium-config", "namespace": "kube-system"},
            "data": {"kube-proxy-replacement": replacement}});
        sample
    }

    #[test]
    fn beside_a_replacement_kube_proxy_is_one_too_many() {
        assert_eq!(both("true").said(), [(3015, Severity::Warning)]);
        assert_eq!(both("false").said(), []);
    }
}
