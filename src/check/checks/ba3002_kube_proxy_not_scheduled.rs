//! BA3002: kube-proxy's DaemonSet is scheduled nowhere, or not on the node that browsers dial.

use crate::check::{Check, Hop, field, rules_lead_right, where_it_hurts};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3002),
    slug: "kube-proxy-not-scheduled",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy, Input::Nodes],
    either: &[],
    remedies: &[ActionName::ScheduleKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let proxy = &facts.proxy;
    let Some(set) = proxy.daemon_set.filter(|_| proxy.kind == Kind::DaemonSet) else { return Vec::new() };
    let here = target.reach.node.filter(|n| proxy.excluded.contains_key(n) && !proxy.pods.contains_key(n));
    if !proxy.nowhere && here.is_none() {
        return Vec::new();
    }
    let exclusion = target.reach.node.or(here).and_then(|n| proxy.excluded.get(n));
    let exclusion = exclusion.or_else(|| proxy.excluded.values().next());
    let object = ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy");
    let wanted = facts.snapshot.objects.nodes.len();
    let spread = if proxy.nowhere { "0".to_owned() } else { (wanted - proxy.excluded.len()).to_string() };
    let harmless = rules_lead_right(facts, target) == Some(true);
    let mut found = check
        .found(target, object.clone())
        .with("node", target.reach.node.unwrap_or_default())
        .with("asks", exclusion.map(|e| e.asks.clone()).unwrap_or_default())
        .with("scheduled", &spread)
        .with("nodes", wanted)
        .severity(if harmless { Severity::Warning } else { where_it_hurts(target) });
    // A kube-proxy that is missing turns packets away, or leads them to where pods were. If they vanish, there may be
    // more than one cause.
    if target.reach.answers == Some(false) && !target.reach.is_turned_away() {
        found = found.confidence(Confidence::Likely);
    }
    if let Some(exclusion) = exclusion {
        found = found.because(field(&object, exclusion.path, exclusion.asks.as_str()));
    }
    let have = set.status.as_ref().map_or(0, |s| i64::from(s.desired_number_scheduled));
    let want = i64::try_from(wanted).unwrap_or(i64::MAX);
    let count = Evidence::Count { object, what: "scheduled".to_owned(), have, want };
    vec![found.because(count).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn nowhere(mut sample: Sample) -> Sample {
        sample.daemon_set()["spec"]["template"]["spec"]["nodeSelector"] = json!({"no-such-label": "true"});
        *sample.objects("kubeProxyPods") = json!([]);
        sample
    }

    #[test]
    fn it_leads_where_the_rules_never_knew_the_port() {
        let mut sample = nowhere(Sample::healthy());
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3002, Severity::Error)]);
    }

    #[test]
    fn a_laptop_finds_it_by_the_daemon_set() {
        let mut sample = nowhere(Sample::from_laptop());
        sample.answer(json!({"outcome": "refused"}));
        sample.probes(&["nodeProxy"], None, json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3002, Severity::Error)]);
    }

    #[test]
    fn while_old_rules_still_work_it_is_a_warning() {
        assert_eq!(nowhere(Sample::healthy()).said(), [(3002, Severity::Warning)]);
    }

    #[test]
    fn a_node_that_nobody_dials_may_do_without() {
        let mut sample = Sample::healthy();
        sample.objects("nodes")[1]["metadata"]["labels"] = json!({});
        if let Some(pods) = sample.objects("kubeProxyPods").as_array_mut() {
            pods.retain(|p| p["spec"]["nodeName"] == "cp1");
        }
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn calicos_ebpf_parks_it_on_purpose() {
        let mut sample = nowhere(Sample::healthy());
        sample.daemon_set()["spec"]["template"]["spec"]["nodeSelector"] = json!({"non-calico": "true"});
        sample.objects("nodes")[0]["metadata"]["annotations"] =
            json!({"projectcalico.org/IPv4Address": "10.0.0.10/24"});
        assert_eq!(sample.said(), []);
    }
}
