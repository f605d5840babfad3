//! BA0108: another program of this machine listens on the port that a forward would take here.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(108),
    slug: "local-port-taken",
    hop: Hop::Client,
    // It keeps nobody from the page; it keeps the fallback from its usual port.
    severity: Severity::Info,
    confidence: Confidence::Likely,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let taken = &facts.snapshot.client.taken_ports;
    let Some(port) = target.reach.port.filter(|p| taken.contains(p)) else { return Vec::new() };
    // Where this machine's loopback is the page's address, it is meant to be taken.
    let is_here = target.reach.address.is_some_and(|a| a.ip.is_loopback());
    if facts.snapshot.stand.node.is_some() || is_here || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let object = ObjectRef::cluster("Host", "localhost");
    vec![check.found(target, object.clone()).because(field(&object, "tcp", port))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use serde_json::json;

    fn taken(outcome: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["client"] = json!({"takenPorts": [30080]});
        sample.answer(json!({"outcome": outcome}));
        sample
    }

    #[test]
    fn it_matters_where_a_forward_is_called_for() {
        assert!(taken("timeout").said().iter().any(|(code, _)| *code == 108));
        let mut sample = Sample::from_laptop();
        sample.0["client"] = json!({"takenPorts": [30080]});
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn another_port_is_nobodys_matter() {
        let mut sample = taken("timeout");
        sample.0["client"] = json!({"takenPorts": [30300]});
        assert!(sample.said().iter().all(|(code, _)| *code != 108));
    }
}
