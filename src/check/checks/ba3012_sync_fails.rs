//! BA3012: kube-proxy runs and follows the cluster, but cannot write its rules: the kernel or another program refuses them.

use crate::check::{Check, Hop, rules_lead_right, where_it_hurts};
use crate::facts::{Facts, TargetFacts, log, pod, proxy};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3012),
    slug: "sync-fails",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy],
    either: &[],
    remedies: &[ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(3019), Code(3020), Code(3021), Code(3022)],
    run,
};

/// Seconds: a sync that failed is tried again every thirty.
const RECENT: i64 = 300;

/// What kube-proxy says of a sync that failed (pkg/proxy/iptables and pkg/proxy/nftables), and iptables of the lock.
const FAILED: [&str; 5] = [
    "Failed to execute iptables-restore",
    "nftables sync failed",
    "Sync failed; retrying",
    "xtables lock",
    "Failed to ensure",
];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some((node, sick)) = target.reach.node.and_then(|n| facts.proxy.pods.get_key_value(n)) else {
        return Vec::new();
    };
    let name = pod::name(sick);
    let telling = |line: &&str| FAILED.iter().any(|w| line.contains(w)) && log::is_recent(line, facts.now(), RECENT);
    let said = facts.snapshot.objects.kube_proxy_logs.get(name).and_then(|l| l.lines().rfind(telling));
    let Some(line) = said.filter(|_| facts.proxy.runs_on(node)) else { return Vec::new() };
    let object = ObjectRef::namespaced("Pod", "kube-system", name);
    let leads = rules_lead_right(facts, target);
    let severity = if leads == Some(true) { Severity::Warning } else { where_it_hurts(target) };
    // 503: an update has been waiting for longer than two sync periods.
    let late = proxy::health(facts.snapshot, node).filter(|p| matches!(p.outcome, Outcome::Http { status: 503, .. }));
    let sure = severity == Severity::Warning || leads == Some(false) || late.is_some();
    let found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("node", node)
        .severity(severity)
        .confidence(if sure { Confidence::Certain } else { Confidence::Likely });
    let log = Evidence::Log { object, line: line.trim().to_owned() };
    vec![found.because(log).because_of(late).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    const LOG: &str = "E1123 11:59:30.000000       1 proxier.go:1564] \"Failed to execute iptables-restore\" err=<\n\
                       \texit status 4: Another app is currently holding the xtables lock.\n >";

    fn failing() -> Sample {
        let mut sample = Sample::healthy();
        let name = sample.objects("kubeProxyPods")[0]["metadata"]["name"].clone();
        sample.objects("kubeProxyLogs")[name.as_str().unwrap_or_default()] = json!(LOG);
        sample
    }

    #[test]
    fn while_its_rules_still_work_it_is_a_warning() {
        assert_eq!(failing().said(), [(3012, Severity::Warning)]);
    }

    #[test]
    fn the_missing_rule_is_its_consequence() {
        let mut sample = failing();
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3012, Severity::Error)]);
        assert_eq!(sample.finding(3012).confidence, Confidence::Certain);
    }

    #[test]
    fn what_failed_this_morning_has_been_tried_again() {
        let mut sample = failing();
        sample.0["takenAt"] = json!("2026-11-23T18:00:00Z");
        assert_eq!(sample.said(), []);
    }
}
