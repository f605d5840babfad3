//! BA5012: packets are lost between the node that is dialled and the pod's, all of one direction or some of both.

use crate::check::apart::apart;
use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5012),
    slug: "loss-between-nodes",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::NodeSettings, Input::OutsiderProbe],
    either: &[],
    remedies: &[ActionName::PinToControlPlane, ActionName::MendPodNetwork],
    explains: &[Code(3018), Code(4004), Code(5011), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    apart(facts, target).map(|a| a.found(check, target)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn lost() -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn packets_that_vanish_in_spite_of_a_route_are_lost_between_the_nodes() {
        assert_eq!(lost().said(), [(5012, Severity::Error)]);
        assert_eq!(lost().finding(5012).arg("to"), "w1");
    }

    #[test]
    fn an_answer_after_a_second_attempt_is_a_sign_of_loss() {
        let mut sample = lost();
        let late = json!({"outcome": "http", "status": 200, "right": true, "millis": 1020});
        sample.probes(&["nodeToPod"], None, late);
        assert_eq!(sample.said(), [(5012, Severity::Error)]);
    }

    #[test]
    fn a_missing_route_is_another_cause() {
        let mut sample = lost();
        sample.0["host"]["unroutedPodCidrs"] = json!(["10.244.1.0/24"]);
        assert_eq!(sample.said(), [(5011, Severity::Error)]);
    }
}
