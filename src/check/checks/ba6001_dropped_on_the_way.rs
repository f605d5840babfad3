//! BA6001: the page answers inside the cluster, but packets from here never arrive.

use crate::check::{Check, Hop, edge};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(6001),
    slug: "dropped-on-the-way",
    hop: Hop::Edge,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::ClientProbe],
    either: &[],
    remedies: &[ActionName::OpenSecurityGroup],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    edge::dropped(check, facts, target).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn dropped() -> Sample {
        let mut sample = Sample::from_laptop();
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn a_node_that_answers_inside_makes_it_likely() {
        assert_eq!(dropped().said(), [(6001, Severity::Error)]);
        assert_eq!(dropped().finding(6001).confidence, Confidence::Likely);
    }

    #[test]
    fn without_that_view_it_is_possible() {
        let mut sample = dropped();
        sample.blind("nodeProxy");
        assert_eq!(sample.finding(6001).confidence, Confidence::Possible);
    }

    #[test]
    fn ssh_alone_shows_that_a_known_address_is_reached() {
        for (known, confidence) in [(true, Confidence::Likely), (false, Confidence::Possible)] {
            let mut sample = dropped();
            sample.probes(&["client"], None, json!({"outcome": "timeout"}));
            sample.probe(
                json!({"vantage": "client", "host": "203.0.113.10", "port": 22, "outcome": "connected", "millis": 1}),
            );
            if !known {
                sample.0["stand"]["server"] = json!("198.51.100.7:6443");
                sample.0["addresses"] = json!([{"ip": "203.0.113.10", "source": "flag"}]);
            }
            assert_eq!(sample.finding(6001).confidence, confidence, "{known}");
            assert!(sample.said().iter().all(|(code, _)| *code != 101), "{known}");
        }
    }

    #[test]
    fn a_silent_address_is_another_matter() {
        let mut sample = dropped();
        sample.probes(&["client"], None, json!({"outcome": "timeout"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 6001));
    }
}
