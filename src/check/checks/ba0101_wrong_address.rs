//! BA0101: nothing at all answers at the address, so it is probably not the node's.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, Outcome, Probe, Severity, Vantage};

pub(crate) const CHECK: Check = Check {
    code: Code(101),
    slug: "wrong-address",
    hop: Hop::Client,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::ClientProbe],
    either: &[],
    // Only a person knows the right one.
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(_), Some(address)) = (target.stuck(), target.reach.address) else { return Vec::new() };
    if facts.snapshot.stand.node.is_some() || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let here = |p: &&Probe| p.vantage == Vantage::Client && p.target.is_none() && p.host.parse() == Ok(address.ip);
    let mut controls: Vec<&Probe> = facts.snapshot.probes.iter().filter(here).collect();
    controls.sort_by_key(|p| p.port);
    let silent = |p: &&Probe| matches!(p.outcome, Outcome::Timeout | Outcome::NoRoute | Outcome::NetworkUnreachable);
    if controls.is_empty() || !controls.iter().chain(&target.reach.decisive).all(silent) {
        return Vec::new();
    }
    let other = target.reach.client.iter().find(|p| p.outcome.is_right()).map(|p| p.host.as_str());
    let found = check.found(target, target.target.service_ref()).with("other", other.unwrap_or_default());
    vec![found.because_of(target.reach.failure()).because_of(controls)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn an_address_that_is_silent_on_every_port_is_doubted() {
        let mut sample = Sample::from_laptop();
        sample.probes(&["client"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(101, Severity::Error)]);
    }

    #[test]
    fn one_port_that_answers_acquits_the_address() {
        let mut sample = Sample::from_laptop();
        sample.answer(json!({"outcome": "timeout"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 101));
    }
}
