//! BA5008: the pod network contains the address of a node, so that packets for that node may go to pods and the other way.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::check::{Check, Hop, field, where_it_hurts};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5008),
    slug: "pod-network-overlap",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Nodes, Input::Pods],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let objects = &facts.snapshot.objects;
    // A CNI with an allocator of its own leaves these ranges unused, and then nothing overlaps.
    let used = |cidr: &str| objects.pods.iter().filter_map(address).any(|ip| node::cidr_contains(cidr, ip));
    let mut nodes: Vec<_> = objects.nodes.iter().collect();
    nodes.sort_by_key(|n| node::name(n));
    let in_use = nodes.iter().flat_map(|n| node::pod_cidrs(n)).any(used);
    for owner in nodes.iter().filter(|_| in_use) {
        for cidr in node::pod_cidrs(owner) {
            let inside = |ip: &&str| ip.parse().is_ok_and(|ip: IpAddr| node::cidr_contains(cidr, ip));
            let hit = nodes.iter().find_map(|n| Some((*n, node::internal_ips(n).into_iter().find(inside)?)));
            let Some((other, ip)) = hit else { continue };
            let severity = where_it_hurts(target);
            let object = ObjectRef::cluster("Node", node::name(owner));
            let found = check
                .found(target, object.clone())
                .with("node", node::name(owner))
                .with("cidr", cidr)
                .with("other", node::name(other))
                .with("ip", ip)
                .severity(severity)
                // That they overlap is certain; that this is what breaks the page is not.
                .confidence(if severity == Severity::Error { Confidence::Likely } else { Confidence::Certain });
            let address = field(&ObjectRef::cluster("Node", node::name(other)), "status.addresses[InternalIP]", ip);
            return vec![found.because(field(&object, "spec.podCIDR", cidr)).because(address)];
        }
    }
    Vec::new()
}

/// The address that a pod has of its own.
fn address(pod: &Pod) -> Option<IpAddr> {
    let of_node = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    pod.status.as_ref().filter(|_| !of_node)?.pod_ip.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn overlapping() -> Sample {
        let mut sample = Sample::healthy();
        let nodes = sample.objects("nodes");
        nodes[1]["status"]["addresses"][0]["address"] = json!("10.244.0.11");
        sample
    }

    #[test]
    fn the_overlap_is_certain_and_its_effect_likely() {
        assert_eq!(overlapping().said(), [(5008, Severity::Warning)]);
        assert_eq!(overlapping().finding(5008).arg("cidr"), "10.244.0.0/24");
        let mut sample = overlapping();
        sample.answer(json!({"outcome": "timeout"}));
        assert_eq!(sample.finding(5008).confidence, Confidence::Likely);
    }

    #[test]
    fn ranges_that_no_pod_uses_may_overlap() {
        let mut sample = overlapping();
        for pod in sample.objects("pods").as_array_mut().into_iter().flatten() {
            pod["status"]["podIP"] = json!("192.168.77.7");
        }
        assert_eq!(sample.said(), []);
    }
}
