//! BA3012: kube-proxy runs and follows the cluster, but cannot write its rules: the kernel or another program refuses them.

use crate::check::{Check, Hop, proxy_log};
use crate::facts::{Facts, TargetFacts, log, proxy};
use crate::model::pod::Pod;
use crate::model::{ActionName, Code, Confidence, Finding, Input, Outcome, Severity};

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
    let telling =
        |_: &Pod, line: &str| FAILED.iter().any(|w| line.contains(w)) && log::is_recent(line, facts.now(), RECENT);
    let said = proxy_log::said(facts, target, telling).filter(|said| facts.proxy.runs_on(said.node));
    let Some(said) = said else { return Vec::new() };
    // 503: an update has been waiting for longer than two sync periods.
    let late =
        proxy::health(facts.snapshot, said.node).filter(|p| matches!(p.outcome, Outcome::Http { status: 503, .. }));
    let found = said.found(check, facts, target, late.is_some());
    vec![found.because_of(late).because_of(target.reach.failure())]
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
