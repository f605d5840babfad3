//! BA5003: IP-in-IP, by which the network plugin carries packets between nodes, seems to be blocked.

use crate::check::apart::apart;
use crate::check::{Check, Hop};
use crate::facts::overlay::Encapsulation;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5003),
    slug: "ipip-blocked",
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
    let by = apart(facts, target).filter(|a| a.by == Some(Encapsulation::Ipip));
    by.map(|a| a.found(check, target)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn a_route_into_the_tunnel_device_says_so() {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        sample.0["host"]["routes"] = json!([{"to": "10.244.1.0/26", "via": "10.0.0.11", "device": "tunl0"}]);
        assert_eq!(sample.said(), [(5003, Severity::Error)]);
        sample.probes(&["nodeToPod"], None, json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 5003));
    }
}
