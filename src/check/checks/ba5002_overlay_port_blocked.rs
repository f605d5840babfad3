//! BA5002: the UDP port by which the network plugin carries packets between nodes seems to be blocked.

use crate::check::apart::apart;
use crate::check::{Check, Hop};
use crate::facts::overlay::Encapsulation;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5002),
    slug: "overlay-port-blocked",
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
    let found = apart(facts, target).and_then(|a| match a.by {
        Some(Encapsulation::Udp(port)) => Some(a.found(check, target).with("udp", port)),
        _ => None,
    });
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn lost(device: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        sample.0["host"]["routes"] = json!([{"to": "10.244.1.0/24", "via": "10.244.1.0", "device": device}]);
        sample
    }

    #[test]
    fn the_port_is_that_of_the_route_s_device() {
        assert_eq!(lost("flannel.1").said(), [(5002, Severity::Error)]);
        assert_eq!(lost("flannel.1").finding(5002).arg("udp"), "8472");
        assert_eq!(lost("vxlan.calico").finding(5002).arg("udp"), "4789");
        assert_eq!(lost("eth0").said(), [(5012, Severity::Error)]);
    }
}
