//! BA0204: the API server cannot reach a node's kubelet: no logs, no exec, no port-forward to its pods.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity, Vantage};

pub(crate) const CHECK: Check = Check {
    code: Code(204),
    slug: "kubelet-unreachable",
    hop: Hop::Client,
    // A NodePort does without kubelets; a fallback through the API server does not.
    severity: Severity::Warning,
    confidence: Confidence::Likely,
    inputs: &[Input::Nodes, Input::Kubelet, Input::Answering],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

/// Milliseconds. Through an API server that is this slow a log that is late says nothing of the kubelet.
const SLOW: u64 = 1000;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let snapshot = facts.snapshot;
    let quick = snapshot.answering.as_ref().is_some_and(|a| a.millis < SLOW);
    let cut = |p: &&Probe| match p.outcome {
        Outcome::Refused | Outcome::NoRoute | Outcome::NetworkUnreachable => true,
        Outcome::Timeout => quick,
        _ => false,
    };
    // A node that is not ready is another matter.
    let ready = |p: &&Probe| p.node.as_deref().and_then(|n| facts.node(n)).is_some_and(node::is_ready);
    let mut lost: Vec<&Probe> =
        snapshot.probes.iter().filter(|p| p.vantage == Vantage::Kubelet).filter(cut).filter(ready).collect();
    lost.sort_by(|a, b| a.host.cmp(&b.host));
    // Of interest: where the page's pods run, else where it is dialled.
    let pods = target.service.iter().flat_map(|s| s.endpoints.iter().filter_map(|e| e.node));
    let concerned: Vec<&str> = pods.chain(target.reach.node).collect();
    let Some(first) = lost.iter().find(|p| concerned.contains(&p.host.as_str())) else { return Vec::new() };
    let name = first.host.clone();
    let address = facts.node(&name).and_then(|n| node::internal_ips(n).first().copied()).unwrap_or_default();
    let found = check.found(target, ObjectRef::cluster("Node", &name)).with("node", &name).with("ip", address);
    vec![found.because_of([*first])]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn cut_off(node: &str, outcome: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.0["answering"] = json!({"millis": 4, "clockAhead": 0});
        sample.probe(json!({"vantage": "kubelet", "host": node, "port": 10250, "node": node,
                "outcome": outcome, "millis": 3000}));
        sample
    }

    #[test]
    fn the_node_of_the_pod_matters() {
        assert_eq!(cut_off("w1", "timeout").said(), [(204, Severity::Warning)]);
        assert_eq!(cut_off("w9", "timeout").said(), []);
        assert_eq!(cut_off("w1", "connected").said(), []);
    }

    #[test]
    fn behind_a_slow_api_server_nothing_is_said_of_kubelets() {
        let mut sample = cut_off("w1", "timeout");
        sample.0["answering"]["millis"] = json!(2000);
        assert!(sample.said().iter().all(|(code, _)| *code != 204));
    }
}
