//! BA5005: flannel took the same address for two nodes, as on virtual machines whose first device is a NAT of each its own.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5005),
    slug: "flannel-address",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes],
    either: &[],
    remedies: &[ActionName::PinToControlPlane],
    explains: &[Code(3018), Code(5002), Code(5011), Code(5012), Code(6001)],
    run,
};

const ADDRESS: &str = "flannel.alpha.coreos.com/public-ip";

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(from)) = (target.stuck(), target.reach.node) else { return Vec::new() };
    let remote = service.usable().filter_map(|e| e.node).find(|n| *n != from);
    let Some(to) = remote.filter(|_| target.reach.answers == Some(false) && !service.is_local()) else {
        return Vec::new();
    };
    let address = |name: &str| facts.node(name)?.metadata.annotations.as_ref()?.get(ADDRESS).map(String::as_str);
    let Some(shared) = address(to).filter(|a| address(from) == Some(a)) else { return Vec::new() };
    let path = format!("metadata.annotations[{ADDRESS:?}]");
    let mut found = check.found(target, ObjectRef::cluster("Node", to)).with("from", from).with("to", to);
    found = found.with("shared", shared);
    for name in [from, to].into_iter().filter_map(|n| facts.node(n)).map(node::name) {
        found = found.because(field(&ObjectRef::cluster("Node", name), path.clone(), shared));
    }
    vec![found.because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn addresses(second: &str) -> Sample {
        let mut sample = Sample::healthy();
        for (at, address) in ["10.0.2.15", second].into_iter().enumerate() {
            sample.objects("nodes")[at]["metadata"]["annotations"] =
                json!({"flannel.alpha.coreos.com/public-ip": address});
        }
        sample
    }

    #[test]
    fn one_address_for_two_nodes_leads_nowhere() {
        let mut sample = addresses("10.0.2.15");
        assert_eq!(sample.said(), []);
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(5005, Severity::Error)]);
        let mut sample = addresses("10.0.0.11");
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(5012, Severity::Error)]);
    }
}
