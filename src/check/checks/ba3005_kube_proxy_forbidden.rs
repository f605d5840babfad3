//! BA3005: kube-proxy may not read Services, their endpoints or nodes any more: its rights in the cluster are lost.

use crate::check::{Check, Hop, proxy_log};
use crate::facts::{Facts, TargetFacts, log, pod};
use crate::model::pod::Pod;
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3005),
    slug: "kube-proxy-forbidden",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy],
    either: &[],
    remedies: &[ActionName::BindKubeProxy, ActionName::HostPort],
    explains: &[Code(3003), Code(3018), Code(3019), Code(3020), Code(3021), Code(3022), Code(6001)],
    run,
};

/// Seconds: client-go tries again every minute at least.
const RECENT: i64 = 300;

/// What kube-proxy cannot do without.
const NEEDED: [&str; 3] = ["services", "endpointslices", "nodes"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    // What a run that ended last said holds until the next one; a run that goes on must have said it lately.
    let crashes = |sick: &Pod| pod::trouble(sick).is_some();
    let telling =
        |sick: &Pod, line: &str| is_forbidden(line) && (crashes(sick) || log::is_recent(line, facts.now(), RECENT));
    let Some(said) = proxy_log::said(facts, target, telling) else { return Vec::new() };
    vec![said.found(check, facts, target, crashes(said.pod)).because_of(target.reach.failure())]
}

/// RBAC's words (`cannot list resource "services" in API group …`), whose quotes klog may have escaped.
fn is_forbidden(line: &str) -> bool {
    let read = ["cannot list", "cannot watch", "cannot get"].iter().any(|verb| line.contains(verb));
    line.contains("forbidden")
        && read
        && NEEDED
            .iter()
            .any(|what| line.contains(&format!("resource \"{what}")) || line.contains(&format!("resource \\\"{what}")))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    const LOG: &str = r#"E1123 11:59:30.000000       1 reflector.go:166] "Unhandled Error" err="failed to list *v1.Service: services is forbidden: User \"system:serviceaccount:kube-system:kube-proxy\" cannot list resource \"services\" in API group \"\" at the cluster scope""#;

    fn forbidden() -> Sample {
        let mut sample = Sample::healthy();
        let name = sample.objects("kubeProxyPods")[0]["metadata"]["name"].clone();
        sample.objects("kubeProxyLogs")[name.as_str().unwrap_or_default()] = json!(LOG);
        sample
    }

    #[test]
    fn while_its_rules_still_work_it_is_a_warning() {
        assert_eq!(forbidden().said(), [(3005, Severity::Warning)]);
    }

    #[test]
    fn the_missing_rule_and_the_crash_loop_are_its_consequences() {
        let mut sample = forbidden();
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3005, Severity::Error)]);
        assert_eq!(sample.finding(3005).confidence, Confidence::Certain);
        sample.objects("kubeProxyPods")[0]["status"]["containerStatuses"] = json!([{"name": "kube-proxy",
            "image": "kube-proxy", "imageID": "", "ready": false, "restartCount": 6,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]);
        assert_eq!(sample.said(), [(3005, Severity::Error)]);
    }

    #[test]
    fn what_it_said_this_morning_is_history() {
        let mut sample = forbidden();
        sample.0["takenAt"] = json!("2026-11-23T18:00:00Z");
        assert_eq!(sample.said(), []);
    }
}
