//! BA3021: kube-proxy's process is there, but stuck: it says nothing when asked for its health, and its rules stay as they were.

use crate::check::stale::{is_following, stale};
use crate::check::{Check, Hop};
use crate::facts::proxy::{self, Kind};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3021),
    slug: "kube-proxy-wedged",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy],
    either: &[Input::Rules, Input::PortForward],
    remedies: &[ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(3019), Code(3020), Code(3022)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed() else { return Vec::new() };
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let host = facts.snapshot.host.as_ref();
    let seen = host.and_then(|host| Some((here?, host.rules.as_ref()?, host.proxy_health.as_ref()?)));
    let Some((node, rules, health)) = seen else { return from_afar(check, facts, target) };
    // 503: an update has been waiting for longer than two sync periods (or the node is about to be removed).
    let (silent, late) = (matches!(health.outcome, Outcome::Silent | Outcome::Timeout), is_late(&health.outcome));
    if !(silent || late) || !has_settled(facts, node) {
        return Vec::new();
    }
    let dead = stale(facts, target).filter(|s| !s.gone).map(|s| s.rule);
    let local = service.is_local() && !service.usable().any(|e| e.node == Some(node));
    let port = service.node_port().unwrap_or_default();
    let missing = dead.is_none()
        && target.stuck().is_some()
        && target.reach.answers == Some(false)
        && !local
        && rules.node_port(port).is_none()
        && !is_following(facts, target, node);
    let hurts = dead.is_some() || missing;
    // Late alone, with rules that are right, may have another reason; a silent one fails at the next change.
    if !hurts && !silent {
        return Vec::new();
    }
    let confidence = if hurts && silent { Confidence::Certain } else { Confidence::Likely };
    let mut found = accused(check, facts, target, node, hurts).confidence(confidence).because_of([health]);
    if let Some(rule) = dead {
        found = found.because(Evidence::Rule { node: node.to_owned(), rule: rule.clone() });
    }
    if missing {
        found = found.because(Evidence::NoRule { node: node.to_owned(), port });
    }
    vec![found.because_of(target.reach.failure())]
}

/// From elsewhere its rules are not seen, but that it takes a connection in its own node and says nothing.
fn from_afar(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(_), Some(node)) = (target.stuck(), target.reach.node) else { return Vec::new() };
    let silent = proxy::silent_inside(facts.snapshot, node).filter(|_| target.reach.answers == Some(false));
    let Some(silent) = silent.filter(|_| has_settled(facts, node)) else { return Vec::new() };
    let proven = target.reach.pod_proxy.iter().copied().find(|p| p.outcome.is_right());
    let found = accused(check, facts, target, node, proven.is_some()).confidence(Confidence::Likely);
    vec![found.because_of([silent]).because_of(target.reach.failure()).because_of(proven)]
}

/// Whether a kube-proxy runs there that had its time.
fn has_settled(facts: &Facts<'_>, node: &str) -> bool {
    facts.proxy.runs_on(node) && !facts.proxy.has_just_started(node, facts.now(), 30)
}

/// The finding, whoever saw it.
fn accused(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>, node: &str, hurts: bool) -> Finding {
    let name = facts.proxy.pods.get(node).map(|p| pod::name(p)).unwrap_or_default();
    let found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node).with("pod", name);
    let mut found = found.severity(if hurts { Severity::Error } else { Severity::Warning });
    // A static pod, or a part of another process: nobody makes it anew.
    if facts.proxy.kind == Kind::Embedded {
        found.remedies.retain(|r| *r != ActionName::RestartKubeProxy);
    }
    found
}

fn is_late(health: &Outcome) -> bool {
    matches!(health, Outcome::Http { status: 503, .. })
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::{Value, json};

    fn health(outcome: Value) -> Value {
        let mut probe = json!({"vantage": "client", "host": "127.0.0.1", "port": 10256, "millis": 1000});
        for (key, value) in outcome.as_object().into_iter().flatten() {
            probe[key] = value.clone();
        }
        probe
    }

    fn wedged() -> Sample {
        let mut sample = Sample::healthy();
        sample.0["host"]["proxyHealth"] = health(json!({"outcome": "silent"}));
        sample
    }

    fn stale(mut sample: Sample) -> Sample {
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!(["10.244.1.99:9080"]);
        sample.answer(json!({"outcome": "noRoute"}));
        sample
    }

    #[test]
    fn stale_rules_are_its_consequence() {
        assert_eq!(stale(wedged()).said(), [(3021, Severity::Error)]);
        assert_eq!(stale(wedged()).finding(3021).confidence, Confidence::Certain);
    }

    #[test]
    fn a_missing_rule_cannot_be_had_by_waking_what_does_not_hear() {
        let mut sample = wedged();
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3021, Severity::Error)]);
    }

    #[test]
    fn before_the_pod_moves_it_is_a_warning() {
        assert_eq!(wedged().said(), [(3021, Severity::Warning)]);
    }

    /// A laptop's look at a node that does not serve the port, and what kube-proxy says within that node.
    fn afar(outcome: Value) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.answer(json!({"outcome": "timeout"}));
        sample.probes(&["nodeProxy"], None, json!({"outcome": "timeout"}));
        let pod = sample.objects("kubeProxyPods")[0].clone();
        let mut probe = json!({"vantage": "portForward", "host": "kube-system/kube-proxy", "port": 10249, "millis": 3500,
            "node": pod["spec"]["nodeName"], "pod": pod["metadata"]["name"]});
        for (key, value) in outcome.as_object().into_iter().flatten() {
            probe[key] = value.clone();
        }
        sample.probe(probe);
        sample
    }

    #[test]
    fn from_afar_its_silence_in_its_own_node_tells() {
        let silent = json!({"outcome": "silent"});
        assert_eq!(afar(silent.clone()).said(), [(3021, Severity::Error)]);
        assert_eq!(afar(silent).finding(3021).confidence, Confidence::Likely);
        for outcome in [
            json!({"outcome": "http", "status": 200, "right": true}),
            json!({"outcome": "refused"}),
            json!({"outcome": "timeout"}),
        ] {
            assert_eq!(afar(outcome.clone()).said(), [(3018, Severity::Error)], "{outcome}");
        }
    }

    #[test]
    fn one_that_is_well_or_cannot_be_asked_is_not_accused() {
        let mut sample = stale(Sample::healthy());
        sample.0["host"]["proxyHealth"] = health(json!({"outcome": "http", "status": 200, "right": true}));
        assert_eq!(sample.said(), [(3019, Severity::Error)]);
        let mut sample = Sample::healthy();
        sample.0["host"]["proxyHealth"] = health(json!({"outcome": "http", "status": 503, "right": true}));
        assert_eq!(sample.said(), []);
    }
}
