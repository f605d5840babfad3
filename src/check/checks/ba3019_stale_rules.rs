//! BA3019: this node's rules lead the nodePort to pods that are gone, and nobody brings them up to date.

use crate::check::stale::{Stale, stale};
use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
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

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(Stale { node, rule, gone }), Some(service)) = (stale(facts, target), target.stuck()) else {
        return Vec::new();
    };
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
