//! BA3003: kube-proxy crashes on the node that browsers dial.

use crate::check::{Check, Hop, rules_lead_right, where_it_hurts};
use crate::facts::pod::{self, TroubleKind};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3003),
    slug: "kube-proxy-crash-loop",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy],
    either: &[],
    remedies: &[ActionName::ConfigureKubeProxy, ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(3019), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let pods = &facts.proxy.pods;
    let dialled = target.reach.node.map(|n| (n, pods.get(n)));
    let sick = match dialled {
        Some((node, found)) => found.filter(|p| crashes(p)).map(|p| (node, *p)),
        // Where nobody knows which node is dialled, all of them must be sick.
        None if pods.values().all(|p| crashes(p)) => pods.iter().next().map(|(n, p)| (*n, *p)),
        None => None,
    };
    let Some((node, sick)) = sick else { return Vec::new() };
    let Some(trouble) = pod::trouble(sick) else { return Vec::new() };
    let name = pod::name(sick);
    let object = ObjectRef::namespaced("Pod", "kube-system", name);
    let log = facts.snapshot.objects.kube_proxy_logs.get(name).and_then(|l| last_line(l));
    let harmless = rules_lead_right(facts, target) == Some(true);
    let found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("node", node)
        .with("reason", trouble.reason)
        .with("exit_code", trouble.exit_code.map(|c| c.to_string()).unwrap_or_default())
        .with("log", log.unwrap_or_default())
        .severity(if harmless { Severity::Warning } else { where_it_hurts(target) });
    let state = Evidence::Container {
        object: object.clone(),
        container: trouble.container.to_owned(),
        reason: trouble.reason.to_owned(),
        message: trouble.message.to_owned(),
    };
    let found = found.because(state).because_of(target.reach.failure());
    vec![match log {
        Some(line) => found.because(Evidence::Log { object, line: line.to_owned() }),
        None => found,
    }]
}

fn crashes(pod: &crate::model::pod::Pod) -> bool {
    pod::trouble(pod).is_some_and(|t| t.kind == TroubleKind::Crash)
}

/// The last line that klog marks as an error or fatal, else the last line.
fn last_line(log: &str) -> Option<&str> {
    let lines = || log.lines().map(str::trim).filter(|l| !l.is_empty());
    lines().rfind(|l| l.starts_with(['E', 'F']) || l.contains("rror")).or_else(|| lines().next_back())
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn crashing() -> Sample {
        let mut sample = Sample::healthy();
        let pod = &mut sample.objects("kubeProxyPods")[0];
        pod["status"]["containerStatuses"] = json!([{"name": "kube-proxy", "image": "kube-proxy", "imageID": "",
            "ready": false, "restartCount": 6, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]);
        let name = pod["metadata"]["name"].clone();
        let log = "I1123 start\nE1123 failed to load config: open /var/lib/kube-proxy/configuration.conf: no such file";
        sample.objects("kubeProxyLogs")[name.as_str().unwrap_or_default()] = json!(log);
        sample
    }

    #[test]
    fn its_last_words_are_passed_on() {
        let mut sample = crashing();
        sample.0["host"]["rules"] = json!({"services": false, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3003, Severity::Error)]);
        assert!(sample.finding(3003).arg("log").contains("no such file"));
    }

    #[test]
    fn while_its_rules_still_work_it_is_a_warning() {
        assert_eq!(crashing().said(), [(3003, Severity::Warning)]);
    }
}
