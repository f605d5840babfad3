//! BA3019: this node's rules lead the nodePort to pods that are gone, and nobody brings them up to date.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3019),
    slug: "stale-rules",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy, Input::Rules],
    either: &[],
    remedies: &[ActionName::ScheduleKubeProxy, ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3001), Code(3002), Code(3018)],
    run,
};

/// A kube-proxy that runs has this many seconds to follow a change before it counts as stuck.
const PATIENCE: i64 = 30;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck() else { return Vec::new() };
    let rules = facts.snapshot.host.as_ref().and_then(|h| h.rules.as_ref());
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(rules), Some(node), Some(port)) = (rules, here, service.node_port()) else { return Vec::new() };
    let Some(rule) = rules.node_port(port) else { return Vec::new() };
    let stale = rule.backends.iter().filter(|b| !service.leads_here(b)).count();
    // With externalTrafficPolicy Local a rule without backends is right on a node without pods.
    let rejects = rule.backends.is_empty() && rule.rejects && !service.is_local();
    let dead = (stale > 0 && stale == rule.backends.len()) || rejects;
    if !dead || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let gone = facts.proxy.is_gone_from(node);
    let follows = facts.proxy.runs_on(node) && {
        let now = facts.now();
        let mut changes = service.live_pods().flat_map(|p| [pod::age(p, now), pod::ready_for(p, now)]).flatten();
        changes.any(|age| age < PATIENCE)
            || service.unchanged_for(now).is_none_or(|s| s < PATIENCE)
            || facts.proxy.has_just_started(node, now, PATIENCE)
    };
    if follows || !(gone || facts.proxy.runs_on(node)) {
        return Vec::new();
    }
    let mut found = check
        .found(target, ObjectRef::cluster("Node", node))
        .with("node", node)
        .with("backends", rule.backends.iter().map(|b| b.to_string()).collect::<Vec<_>>().join(", "));
    let ready: Vec<String> = service.usable().filter_map(|e| Some(format!("{}:{}", e.ip, e.port?))).collect();
    found = found.with("endpoints", ready.join(", "));
    if !gone {
        // It is scheduled and says it runs: there is nothing to schedule, and it may yet be slow instead of stuck.
        found = found.confidence(Confidence::Likely);
        found.remedies.retain(|r| *r != ActionName::ScheduleKubeProxy);
    }
    let rule = Evidence::Rule { node: node.to_owned(), rule: rule.clone() };
    found = found.because(rule);
    if gone {
        let object = ObjectRef::namespaced("Pod", "kube-system", "kube-proxy");
        found = found.because(Evidence::Absent { object });
    }
    vec![found.because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{ActionName, Severity};
    use serde_json::json;

    fn stale() -> Sample {
        let mut sample = Sample::healthy();
        sample.0["host"]["rules"]["nodePorts"][0]["backends"] = json!(["10.244.1.99:9080"]);
        sample.answer(json!({"outcome": "noRoute"}));
        sample
    }

    fn excluded(mut sample: Sample) -> Sample {
        let keep_off = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["cp1"]}]}]}}});
        sample.daemon_set()["spec"]["template"]["spec"]["affinity"] = keep_off;
        if let Some(pods) = sample.objects("kubeProxyPods").as_array_mut() {
            pods.retain(|p| p["spec"]["nodeName"] != "cp1");
        }
        sample
    }

    #[test]
    fn it_leads_and_the_missing_kube_proxy_is_part_of_it() {
        let sample = excluded(stale());
        assert_eq!(sample.said(), [(3019, Severity::Error)]);
        assert_eq!(sample.finding(3019).remedies[0], ActionName::ScheduleKubeProxy);
    }

    #[test]
    fn before_the_pod_moves_it_is_only_a_warning_about_kube_proxy() {
        assert_eq!(excluded(Sample::healthy()).said(), [(3002, Severity::Warning)]);
    }

    #[test]
    fn a_kube_proxy_that_has_just_come_back_is_given_time() {
        let mut sample = stale();
        sample.objects("kubeProxyPods")[0]["status"]["containerStatuses"][0]["state"] =
            json!({"running": {"startedAt": "2026-11-23T11:59:58Z"}});
        assert!(sample.said().iter().all(|(code, _)| *code != 3019));
    }

    #[test]
    fn a_kube_proxy_that_is_stuck_is_restarted() {
        assert_eq!(stale().finding(3019).remedies[0], ActionName::RestartKubeProxy);
    }
}
