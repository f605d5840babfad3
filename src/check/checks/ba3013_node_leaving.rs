//! BA3013: kube-proxy says 503 of its health because its node is about to be taken away, not because it is ill.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts, node, proxy};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3013),
    slug: "node-leaving",
    hop: Hop::Node,
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Nodes],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(node) = target.reach.node.and_then(|n| facts.node(n)).filter(|n| node::is_leaving(n)) else {
        return Vec::new();
    };
    let name = node::name(node);
    let health = proxy::health(facts.snapshot, name);
    let late = health.filter(|p| matches!(p.outcome, Outcome::Http { status: 503, .. }));
    let object = ObjectRef::cluster("Node", name);
    let mark = match &node.metadata.deletion_timestamp {
        Some(at) => field(&object, "metadata.deletionTimestamp", at.0.to_string()),
        None => field(&object, "spec.taints", "ToBeDeletedByClusterAutoscaler"),
    };
    vec![check.found(target, object).with("node", name).because(mark).because_of(late)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn tainted(key: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.objects("nodes")[0]["spec"]["taints"] = json!([{"key": key, "effect": "NoSchedule"}]);
        sample.0["host"]["proxyHealth"] = json!({"vantage": "client", "host": "127.0.0.1", "port": 10256,
            "outcome": "http", "status": 503, "right": true, "millis": 1});
        sample
    }

    #[test]
    fn the_autoscalers_mark_explains_the_503() {
        assert_eq!(tainted("ToBeDeletedByClusterAutoscaler").said(), [(3013, Severity::Warning)]);
        assert_eq!(tainted("node-role.kubernetes.io/control-plane").said(), []);
    }
}
