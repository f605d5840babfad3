//! BA5011: the node that is dialled cannot reach the pods of the node where the page runs.

use crate::check::{Check, Hop};
use crate::facts::{Facts, ServiceFacts, TargetFacts, node, proxy};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(5011),
    slug: "no-path-between-nodes",
    hop: Hop::PodNetwork,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[],
    remedies: &[ActionName::RestoreRoute, ActionName::PinToControlPlane],
    explains: &[Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(from)) = (target.stuck(), target.reach.node) else { return Vec::new() };
    let remote = service.usable().all(|e| e.node.is_some_and(|n| n != from));
    if !remote || service.is_local() || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let Some((ip, to)) = service.usable().find_map(|e| Some((e.ip, e.node?))) else { return Vec::new() };
    let on_dialled_node = facts.snapshot.stand.node.as_deref() == Some(from);
    let host = facts.snapshot.host.as_ref().filter(|_| on_dialled_node);
    let unrouted =
        host.and_then(|h| h.unrouted_pod_cidrs.iter().find(|c| service.usable().any(|e| node::cidr_contains(c, e.ip))));
    let lost = |probes: &[&Probe]| !probes.is_empty() && probes.iter().all(|p| is_lost(&p.outcome));
    // Dialled from that node: by ourselves, or by a pod of ours.
    let by_hand = if on_dialled_node { &target.reach.node_to_pod } else { &target.reach.probe_pod };
    let confidence = match unrouted {
        Some(_) => Confidence::Certain,
        None if lost(by_hand) => Confidence::Likely,
        // From afar: asked from inside, the page's own node answers on the port, and the node that is dialled does not.
        None if !on_dialled_node && one_sided(facts, target, service, from) => Confidence::Likely,
        None => return Vec::new(),
    };
    let cidr = facts.node(to).map(node::pod_cidrs).unwrap_or_default().into_iter().find(|c| node::cidr_contains(c, ip));
    let cidr = unrouted.map(String::as_str).or(cidr).map_or_else(|| ip.to_string(), str::to_owned);
    let mut found = check
        .found(target, ObjectRef::cluster("Node", from))
        .with("from", from)
        .with("to", to)
        .with("cidr", &cidr)
        .confidence(confidence);
    if unrouted.is_some() {
        found = found.because(Evidence::NoRouteTo { node: from.to_owned(), cidr });
    }
    vec![found.because_of(by_hand.iter().copied().filter(|p| is_lost(&p.outcome))).because_of(target.reach.failure())]
}

/// No sign of the pod itself: an RST would be one.
fn is_lost(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Timeout | Outcome::NoRoute | Outcome::NetworkUnreachable)
}

/// Whether the nodePort answers on a node where the page runs, but not on this one.
fn one_sided(facts: &Facts<'_>, target: &TargetFacts<'_>, service: &ServiceFacts<'_>, from: &str) -> bool {
    let through = |node: &str| target.reach.through_node(node).map(|p| &p.outcome);
    let with_pod = service.usable().filter_map(|e| e.node).any(|n| through(n).is_some_and(Outcome::is_right));
    // Where kube-proxy of this node is stuck, its rules may lead to a pod that is gone.
    let stuck = proxy::silent_inside(facts.snapshot, from).is_some();
    with_pod && !stuck && through(from).is_some_and(is_lost) && !target.reach.is_turned_away()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, GapReason, Input, Severity};
    use serde_json::json;

    #[test]
    fn a_missing_route_is_certain() {
        let mut sample = Sample::healthy();
        sample.0["host"]["unroutedPodCidrs"] = json!(["10.244.1.0/24"]);
        sample.probes(&["nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(5011, Severity::Error)]);
        assert_eq!(sample.finding(5011).confidence, Confidence::Certain);
    }

    #[test]
    fn packets_that_vanish_on_the_way_are_likely_where_the_routes_are_not_known() {
        let mut sample = Sample::healthy();
        sample.gap(Input::NodeSettings, GapReason::Timeout);
        sample.probes(&["nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        sample.answer(json!({"outcome": "timeout"}));
        assert_eq!(sample.finding(5011).confidence, Confidence::Likely);
    }

    #[test]
    fn from_afar_the_page_s_own_node_answers_and_the_other_does_not() {
        let mut sample = Sample::from_laptop();
        sample.answer(json!({"outcome": "timeout"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 5011));
        if let Some(probe) =
            sample.0["probes"].as_array_mut().into_iter().flatten().find(|p| p["vantage"] == "nodeProxy")
        {
            *probe = json!({"vantage": "nodeProxy", "target": "bookinfo/productpage", "host": "cp1", "port": 30080,
                "node": "cp1", "outcome": "timeout", "millis": 3000});
        }
        assert_eq!(sample.said(), [(5011, Severity::Error)]);
    }

    #[test]
    fn a_pod_of_ours_on_the_dialled_node_stands_in_for_us() {
        let seen = |outcome: &str| {
            let mut sample = Sample::from_laptop();
            sample.answer(json!({"outcome": "timeout"}));
            sample.blind("nodeProxy");
            sample.probe(json!({"vantage": "probePod", "target": "bookinfo/productpage", "host": "10.244.1.7",
                "port": 9080, "node": "w1", "pod": "productpage-v1-5d9c-abcde", "outcome": outcome, "millis": 3000}));
            sample.said().iter().any(|(code, _)| *code == 5011)
        };
        assert!(seen("timeout") && seen("noRoute"));
        assert!(!seen("refused") && !seen("silent"));
    }

    #[test]
    fn a_pod_on_the_dialled_node_needs_no_path() {
        let mut sample = Sample::healthy();
        sample.0["host"]["unroutedPodCidrs"] = json!(["10.244.1.0/24"]);
        sample.objects("endpointSlices")[0]["endpoints"][0]["nodeName"] = json!("cp1");
        sample.objects("endpointSlices")[0]["endpoints"][0]["addresses"] = json!(["10.244.0.7"]);
        assert_eq!(sample.said(), []);
    }
}
