//! BA5004: EC2 drops packets that carry pods' own addresses: the instances' source/destination check is on.

use crate::check::apart::apart;
use crate::check::{Check, Hop};
use crate::facts::overlay::Encapsulation;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5004),
    slug: "source-destination-check",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::NodeSettings, Input::OutsiderProbe],
    either: &[],
    remedies: &[ActionName::PinToControlPlane, ActionName::MendPodNetwork],
    explains: &[Code(3018), Code(5011), Code(5012), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let bare = apart(facts, target).filter(|a| facts.snapshot.stand.ec2 && a.by == Some(Encapsulation::None));
    bare.map(|a| a.found(check, target)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn routed(ec2: bool) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["stand"]["ec2"] = json!(ec2);
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        sample.0["host"]["routes"] = json!([{"to": "10.244.1.0/24", "via": "10.0.0.11", "device": "eth0"}]);
        sample
    }

    #[test]
    fn bare_packets_of_pods_are_lost_on_ec2() {
        assert_eq!(routed(true).said(), [(5004, Severity::Error)]);
        assert_eq!(routed(false).said(), [(5012, Severity::Error)]);
    }
}
