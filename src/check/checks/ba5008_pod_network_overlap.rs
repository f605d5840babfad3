//! BA5008: the pod network contains the address of a node, so that packets for that node may go to pods and the other way.

use crate::check::{Check, Hop, field, where_it_hurts};
use crate::facts::{Facts, Overlap, TargetFacts, node};
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
    let Some(Overlap { owner, cidr, other, ip }) = &facts.overlap else { return Vec::new() };
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
    let address = field(&ObjectRef::cluster("Node", node::name(other)), "status.addresses[InternalIP]", *ip);
    vec![found.because(field(&object, "spec.podCIDR", *cidr)).because(address)]
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
