//! BA8002: the page's pods ask for a port of their node, and the pod network does not give any.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, cilium, pod};
use crate::model::{Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(8002),
    slug: "no-host-ports",
    hop: Hop::PodNetwork,
    // The NodePort does not need it.
    severity: Severity::Warning,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::KubeProxy],
    either: &[Input::Pods, Input::Deployments],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(cilium) = cilium::cilium(facts.snapshot).filter(|c| c.host_ports == Some(false)) else {
        return Vec::new();
    };
    let Some(service) = &target.service else { return Vec::new() };
    let in_node = service.live_pods().any(|p| p.spec.as_ref().and_then(|s| s.host_network) == Some(true));
    let wanted = pod::host_ports(&service.containers).into_iter().next().filter(|_| !in_node);
    let Some(port) = wanted else { return Vec::new() };
    let object = cilium::config_map();
    let found = check.found(target, target.target.service_ref()).with("host_port", port);
    let setting = field(&object, "data[kube-proxy-replacement]", cilium.replacement.unwrap_or("-"));
    vec![found.because(setting).because(field(&found_in(target), "spec.containers[].ports[].hostPort", port))]
}

fn found_in(target: &TargetFacts<'_>) -> crate::model::ObjectRef {
    let name = target.service.as_ref().and_then(|s| s.live_pods().next()).map(pod::name).unwrap_or_default();
    crate::model::ObjectRef::namespaced("Pod", &target.target.namespace, name)
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::{Value, json};

    fn host_port(data: Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.pod()["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(30080);
        *sample.objects("ciliumConfig") =
            json!({"metadata": {"name": "cilium-config", "namespace": "kube-system"}, "data": data});
        sample
    }

    #[test]
    fn cilium_gives_host_ports_only_when_it_is_told_to() {
        assert_eq!(host_port(json!({"kube-proxy-replacement": "false"})).said(), [(8002, Severity::Warning)]);
        for data in [
            json!({"kube-proxy-replacement": "false", "cni-chaining-mode": "portmap"}),
            json!({"kube-proxy-replacement": "false", "enable-host-port": "true"}),
        ] {
            assert_eq!(host_port(data.clone()).said(), [], "{data}");
        }
    }
}
