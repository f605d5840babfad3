//! BA5006: the page comes in small packets, in large ones it does not: somewhere on the way they are dropped without a word.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5006),
    slug: "large-packets-lost",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[Input::NodeSettings, Input::ClientProbe],
    remedies: &[ActionName::ClampSegments, ActionName::PinToControlPlane],
    explains: &[Code(2305), Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(from)) = (target.stuck(), target.reach.node) else { return Vec::new() };
    let decisive = &target.reach.decisive;
    let stopped = target.reach.answers == Some(false) && !decisive.is_empty() && decisive.iter().all(|p| is_cut(p));
    let mut large = target.reach.node_to_pod.iter().chain(&target.reach.client).filter(|p| stopped && is_cut(p));
    let both = large.find_map(|large| {
        let same = |p: &&&Probe| (&p.host, p.port) == (&large.host, large.port);
        let mut small = target.reach.small.iter().filter(|p| p.outcome.is_right());
        Some((*large, *small.find(same)?))
    });
    let Some((large, small)) = both else { return Vec::new() };
    let to = service.usable().filter_map(|e| e.node).find(|n| *n != from).unwrap_or(from);
    let found = check.found(target, ObjectRef::cluster("Node", from)).with("from", from).with("to", to);
    let devices = facts.snapshot.host.as_ref().map(|h| h.devices.as_slice()).unwrap_or_default();
    let mtus: Vec<String> = devices.iter().map(|d| format!("{} {}", d.name, d.mtu)).collect();
    let found = found.with("mtus", mtus.join(", "));
    vec![found.because_of([large, small])]
}

fn is_cut(probe: &Probe) -> bool {
    matches!(probe.outcome, Outcome::Silent | Outcome::Stalled)
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::{Value, json};

    fn cut(small: Value) -> Sample {
        let mut sample = Sample::healthy();
        sample.probes(&["outsider", "nodeToPod", "client"], None, json!({"outcome": "silent"}));
        let mut probe = json!({"vantage": "smallPackets", "target": "bookinfo/productpage", "host": "10.244.1.7",
            "port": 9080, "node": "w1", "pod": "productpage-v1-7d8c-abcde", "millis": 2});
        for (key, value) in small.as_object().into_iter().flatten() {
            probe[key] = value.clone();
        }
        sample.0["probes"].as_array_mut().into_iter().for_each(|p| p.push(probe.clone()));
        sample
    }

    #[test]
    fn small_packets_bring_what_large_ones_do_not() {
        let answered = json!({"outcome": "http", "status": 200, "right": true});
        assert_eq!(cut(answered.clone()).finding(5006).severity, Severity::Error);
        assert_eq!(cut(answered).finding(5006).confidence, Confidence::Likely);
    }

    #[test]
    fn a_page_that_says_nothing_at_all_is_only_slow() {
        let sample = cut(json!({"outcome": "timeout"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 5006));
    }
}
