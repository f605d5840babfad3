//! BA3014: there is no kube-proxy, and Cilium is not set to serve this nodePort in its stead.

use crate::check::{Check, Hop, field, where_it_hurts};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts, cilium};
use crate::model::{Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3014),
    slug: "cilium-no-node-ports",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::KubeProxy],
    either: &[],
    // A value of Helm's release: the text says which.
    remedies: &[],
    explains: &[Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let replaced = matches!(facts.proxy.kind, Kind::Replaced | Kind::Absent);
    let Some(cilium) = cilium::cilium(facts.snapshot).filter(|_| replaced) else { return Vec::new() };
    let Some(port) = target.exposed().and_then(|s| s.node_port()) else { return Vec::new() };
    let object = cilium::config_map();
    let outside = cilium.range.filter(|(range, _)| !range.contains(&port)).map(|(_, text)| text);
    let (evidence, value) = match (cilium.node_ports, outside) {
        (Some(false), _) => {
            let value = cilium.replacement.unwrap_or("-");
            (field(&object, "data[kube-proxy-replacement]", value), format!("kube-proxy-replacement: {value}"))
        }
        (_, Some(text)) => (field(&object, "data[node-port-range]", text), format!("node-port-range: {text}")),
        _ => return Vec::new(),
    };
    let found = check.found(target, object).with("setting", value).severity(where_it_hurts(target));
    vec![found.because(evidence).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::{Value, json};

    fn cilium(data: Value) -> Sample {
        let mut sample = Sample::healthy();
        *sample.objects("daemonSets") = json!([{"metadata": {"name": "cilium", "namespace": "kube-system"}}]);
        *sample.objects("kubeProxyPods") = json!([]);
        sample.0["objects"]["kubeProxyConfig"] = json!(null);
        *sample.objects("ciliumConfig") =
            json!({"metadata": {"name": "cilium-config", "namespace": "kube-system"}, "data": data});
        sample.0["host"]["rules"] = json!({"services": false, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn without_the_replacement_nobody_serves_the_port() {
        assert_eq!(cilium(json!({"kube-proxy-replacement": "false"})).said(), [(3014, Severity::Error)]);
        let narrow = json!({"kube-proxy-replacement": "true", "node-port-range": "31000,32767"});
        assert_eq!(cilium(narrow).said(), [(3014, Severity::Error)]);
    }

    #[test]
    fn one_that_is_set_right_is_not_accused() {
        for data in [json!({"kube-proxy-replacement": "true"}), json!({"enable-node-port": "true"}), json!({})] {
            assert!(cilium(data.clone()).said().iter().all(|(code, _)| *code != 3014), "{data}");
        }
    }
}
