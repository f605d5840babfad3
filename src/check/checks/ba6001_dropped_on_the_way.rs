//! BA6001: the page answers inside the cluster, but packets from here never arrive.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity, Vantage};

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
    let Some(service) = target.stuck() else { return Vec::new() };
    let Some(address) = target.reach.address else { return Vec::new() };
    // On a node a dial does not come from where browsers are.
    let vanishes = target.reach.decisive.iter().all(|p| p.outcome.dropped());
    if facts.snapshot.stand.node.is_some() || target.reach.answers != Some(false) || !vanishes {
        return Vec::new();
    }
    // Without another port that answers at this address, the address itself may be wrong.
    let here = |p: &&Probe| p.vantage == Vantage::Client && p.target.is_none() && p.host.parse() == Ok(address.ip);
    let heard = |p: &&Probe| p.outcome.connected() || p.outcome == Outcome::Refused;
    let controls = facts.snapshot.probes.iter().filter(here).filter(heard);
    let Some(control) = controls.min_by_key(|p| (!p.outcome.connected(), p.port)) else { return Vec::new() };
    let inside = target.reach.node.and_then(|n| target.reach.through_node(n));
    let confidence = match inside {
        Some(probe) if probe.outcome.is_right() => Confidence::Likely,
        // Nobody could look from inside. Where it fails inside as well, other checks say so and lead.
        _ => Confidence::Possible,
    };
    let well = service.live_pods().any(pod::is_ready) || service.pods.is_empty();
    if !well {
        return Vec::new();
    }
    let object = match target.reach.node {
        Some(node) => ObjectRef::cluster("Node", node),
        None => target.target.service_ref(),
    };
    let found = check.found(target, object).with("open_port", control.port).confidence(confidence);
    vec![found.because_of(target.reach.failure()).because_of([control]).because_of(inside)]
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
    fn a_silent_address_is_another_matter() {
        let mut sample = dropped();
        sample.probes(&["client"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), []);
    }
}
