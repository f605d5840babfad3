//! BA3016: k3s or RKE2 was told to run no kube-proxy, and nothing stands in for it.

use crate::check::{Check, Hop, field, where_it_hurts};
use crate::facts::proxy::{Kind, Proxy};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3016),
    slug: "embedded-disabled",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::KubeProxy, Input::Nodes],
    either: &[],
    // The node's own configuration file.
    remedies: &[],
    explains: &[Code(3018), Code(3020), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let snapshot = facts.snapshot;
    if facts.proxy.kind != Kind::Embedded || Proxy::may_be_replaced(snapshot) || target.exposed().is_none() {
        return Vec::new();
    }
    let Some((told, key, argument)) = Proxy::disabled(snapshot) else { return Vec::new() };
    let distribution = if key.starts_with("rke2") { "rke2" } else { "k3s" };
    let object = ObjectRef::cluster("Node", node::name(told));
    let found = check
        .found(target, object.clone())
        .with("node", node::name(told))
        .with("distribution", distribution)
        .severity(where_it_hurts(target));
    let said = field(&object, format!("metadata.annotations[{key}]"), argument);
    vec![found.because(said).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn k3s(arguments: &str) -> Sample {
        let mut sample = Sample::healthy();
        for node in sample.objects("nodes").as_array_mut().into_iter().flatten() {
            node["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.34.4+k3s1");
            node["metadata"]["annotations"] = json!({"k3s.io/node-args": arguments});
        }
        *sample.objects("daemonSets") = json!([]);
        *sample.objects("kubeProxyPods") = json!([]);
        sample.0["objects"]["kubeProxyConfig"] = json!(null);
        sample.0["host"]["rules"] = json!({"services": false, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_argument_is_found_however_it_is_written() {
        for arguments in [r#"["server","--disable-kube-proxy"]"#, r#"["server","--disable-kube-proxy","true"]"#] {
            assert_eq!(k3s(arguments).said(), [(3016, Severity::Error)], "{arguments}");
        }
        for arguments in [r#"["server"]"#, r#"["server","--disable-kube-proxy","false"]"#] {
            assert!(k3s(arguments).said().iter().all(|(code, _)| *code != 3016), "{arguments}");
        }
    }

    #[test]
    fn cilium_may_have_been_meant_to_stand_in() {
        let mut sample = k3s(r#"["server","--disable-kube-proxy"]"#);
        *sample.objects("daemonSets") = json!([{"metadata": {"name": "cilium", "namespace": "kube-system"}}]);
        assert!(sample.said().iter().all(|(code, _)| *code != 3016));
    }
}
