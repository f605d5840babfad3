//! BA3007: kube-proxy belongs on the node that browsers dial, but its pod does not run there: no image, evicted, or never made.

use crate::check::{Check, Hop, rules_lead_right, where_it_hurts};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3007),
    slug: "kube-proxy-not-running",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy, Input::Nodes],
    either: &[],
    remedies: &[ActionName::HostPort],
    explains: &[Code(3018), Code(3019), Code(3020), Code(3022), Code(6001)],
    run,
};

/// A pod may need this many seconds until its container is made.
const PATIENCE: i64 = 60;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let proxy = &facts.proxy;
    let Some(node) = target.reach.node.filter(|n| !proxy.excluded.contains_key(n)) else { return Vec::new() };
    let (Some(set), Kind::DaemonSet) = (proxy.daemon_set, proxy.kind) else { return Vec::new() };
    let leads = rules_lead_right(facts, target);
    let severity = if leads == Some(true) { Severity::Warning } else { where_it_hurts(target) };
    let told = |object: ObjectRef, why: &str| {
        check.found(target, object).with("node", node).with("why", why).severity(severity)
    };
    let failure = target.reach.failure();
    if let Some(sick) = proxy.pods.get(node) {
        let object = ObjectRef::namespaced("Pod", "kube-system", pod::name(sick));
        let Some((why, evidence)) = not_running(facts, &object, sick) else { return Vec::new() };
        return vec![told(object, &why).because(evidence).because_of(failure)];
    }
    // None at all, though the DaemonSet wants one: seen between two pods of a restart this passes by itself.
    let all = &facts.snapshot.objects.kube_proxy_pods;
    let going = all.iter().any(|p| pod::node(p) == Some(node));
    let status = set.status.as_ref().map(|s| (s.current_number_scheduled, s.desired_number_scheduled));
    let Some((have, want)) = status.filter(|(have, want)| have < want && !going) else { return Vec::new() };
    let object = ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy");
    let count = Evidence::Count {
        object: object.clone(),
        what: "scheduled".to_owned(),
        have: i64::from(have),
        want: i64::from(want),
    };
    vec![told(object, "").confidence(Confidence::Possible).because(count).because_of(failure)]
}

/// Why a pod that is there does not run, other than by crashing.
fn not_running(facts: &Facts<'_>, object: &ObjectRef, sick: &Pod) -> Option<(String, Evidence)> {
    let status = sick.status.as_ref()?;
    if pod::phase(sick) == "Failed" {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        let message = status.message.as_deref().unwrap_or_default();
        let said = [reason, message].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(": ");
        let evidence = crate::check::field(object, "status.reason", reason);
        return Some((said, evidence));
    }
    if let Some(trouble) = pod::trouble(sick) {
        let state = Evidence::Container {
            object: object.clone(),
            container: trouble.container.to_owned(),
            reason: trouble.reason.to_owned(),
            message: trouble.message.to_owned(),
        };
        let crashes = trouble.kind == pod::TroubleKind::Crash;
        return (!crashes).then(|| (format!("{} ({})", trouble.reason, trouble.image), state));
    }
    let waited = pod::age(sick, facts.now()).is_some_and(|age| age >= PATIENCE);
    let pending = waited && pod::phase(sick) == "Pending";
    pending.then(|| ("Pending".to_owned(), crate::check::field(object, "status.phase", "Pending")))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn without_image() -> Sample {
        let mut sample = Sample::healthy();
        sample.objects("kubeProxyPods")[0]["status"] = json!({"phase": "Pending", "containerStatuses": [
            {"name": "kube-proxy", "image": "registry.example/kube-proxy:v9", "imageID": "", "ready": false,
             "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}}]});
        sample
    }

    #[test]
    fn while_its_rules_still_work_it_is_a_warning() {
        assert_eq!(without_image().said(), [(3007, Severity::Warning)]);
        assert!(without_image().finding(3007).arg("why").contains("kube-proxy:v9"));
    }

    #[test]
    fn the_port_that_nobody_serves_is_its_consequence() {
        let mut sample = without_image();
        sample.0["host"]["rules"] = json!({"services": false, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3007, Severity::Error)]);
    }

    #[test]
    fn one_that_was_evicted_and_replaced_is_history() {
        let mut sample = Sample::healthy();
        let mut old = sample.objects("kubeProxyPods")[0].clone();
        old["metadata"]["name"] = json!("kube-proxy-zzzzz");
        old["status"] =
            json!({"phase": "Failed", "reason": "Evicted", "message": "low on resource: ephemeral-storage"});
        sample.add("kubeProxyPods", old);
        assert_eq!(sample.said(), []);
        if let Some(pods) = sample.objects("kubeProxyPods").as_array_mut() {
            pods.remove(0);
        }
        assert_eq!(sample.said(), [(3007, Severity::Warning)]);
    }

    #[test]
    fn a_pod_that_is_never_made_is_missed() {
        let mut sample = Sample::healthy();
        if let Some(pods) = sample.objects("kubeProxyPods").as_array_mut() {
            pods.retain(|p| p["spec"]["nodeName"] != "cp1");
        }
        assert_eq!(sample.said(), []);
        sample.daemon_set()["status"]["currentNumberScheduled"] = json!(1);
        assert_eq!(sample.said(), [(3007, Severity::Warning)]);
    }
}
