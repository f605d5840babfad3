//! BA0107: the nodes are containers of this or another machine, whose addresses cannot be dialled from here.

use k8s_openapi::api::core::v1::Node;

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(107),
    slug: "cluster-in-containers",
    hop: Hop::Client,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::ClientProbe],
    either: &[],
    // Ports are published when the cluster is made; until then a forward through the API server leads to the page.
    remedies: &[ActionName::OpenForward],
    explains: &[Code(101), Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(_), Some(address)) = (target.stuck(), target.reach.address) else { return Vec::new() };
    if facts.snapshot.stand.node.is_some() || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let mut kinds: Vec<_> = facts.snapshot.objects.nodes.iter().filter_map(|n| Some((n, maker(n)?))).collect();
    kinds.sort_by_key(|(n, _)| node::name(n));
    let Some((first, (maker, path, value))) = kinds.first() else { return Vec::new() };
    // The address of a container leads nowhere from another machine; this machine's own has no port published on it.
    let inside = kinds.iter().any(|(n, _)| node::internal_ips(n).iter().any(|ip| ip.parse() == Ok(address.ip)));
    let lost = |p: &&Probe| {
        matches!(p.outcome, Outcome::Timeout | Outcome::NoRoute | Outcome::NetworkUnreachable)
            || (address.ip.is_loopback() && p.outcome == Outcome::Refused)
    };
    if !(inside || address.ip.is_loopback()) || !target.reach.decisive.iter().all(lost) {
        return Vec::new();
    }
    let object = ObjectRef::cluster("Node", node::name(first));
    let found = check.found(target, object.clone()).with("maker", maker);
    vec![found.because(field(&object, *path, value.as_str())).because_of(target.reach.failure())]
}

/// What made this node as a container, and the field that says so.
fn maker(node: &Node) -> Option<(&'static str, &'static str, String)> {
    let provider = node.spec.as_ref().and_then(|s| s.provider_id.as_deref()).unwrap_or_default();
    let image =
        node.status.as_ref().and_then(|s| s.node_info.as_ref()).map(|i| i.os_image.as_str()).unwrap_or_default();
    let minikube = node.metadata.labels.as_ref().is_some_and(|l| l.contains_key("minikube.k8s.io/name"));
    if provider.starts_with("kind://") {
        return Some(("kind", "spec.providerID", provider.to_owned()));
    }
    // k3s' own image, which only containers run.
    if provider.starts_with("k3s://k3d-") || image.starts_with("K3s ") {
        return Some(("k3d", "status.nodeInfo.osImage", image.to_owned()));
    }
    // minikube's virtual machines run Buildroot.
    (minikube && !image.starts_with("Buildroot")).then(|| ("minikube", "status.nodeInfo.osImage", image.to_owned()))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn kind(address: &str, outcome: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["stand"]["server"] = json!("127.0.0.1:40123");
        sample.0["addresses"] = json!([{"ip": address, "source": "internalIp", "node": "cp1"}]);
        for node in sample.objects("nodes").as_array_mut().into_iter().flatten() {
            node["spec"]["providerID"] = json!("kind://docker/kind/cp1");
        }
        sample.probes(&["client"], None, json!({"outcome": outcome}));
        sample
    }

    #[test]
    fn a_container_s_address_is_out_of_reach() {
        assert_eq!(kind("10.0.0.10", "timeout").said(), [(107, Severity::Error)]);
    }

    #[test]
    fn one_that_refuses_is_within_reach() {
        assert!(kind("10.0.0.10", "refused").said().iter().all(|(code, _)| *code != 107));
    }

    #[test]
    fn nodes_that_are_machines_are_not_accused() {
        let mut sample = kind("10.0.0.10", "timeout");
        for node in sample.objects("nodes").as_array_mut().into_iter().flatten() {
            node["spec"]["providerID"] = json!("aws:///ap-northeast-2a/i-0123");
        }
        assert!(sample.said().iter().all(|(code, _)| *code != 107));
    }
}
