//! BA1310: kube-controller-manager does not run, so endpoints and pods are not what they should be.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, ServiceFacts, TargetFacts, leader, pod, service};
use crate::model::pod::Pod;
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1310),
    slug: "controllers-silent",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::Leases],
    either: &[],
    // A component of the control plane: the text says where to look.
    remedies: &[],
    // Rules follow the slices, and these lead to pods that are gone.
    explains: &[Code(3018), Code(3019), Code(4004), Code(5011), Code(5012), Code(6001)],
    run,
};

/// A controller that runs puts a pod that became ready into its slice within this many seconds.
const PATIENCE: i64 = 10;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(silence) = leader::silence(facts.snapshot, "kube-controller-manager") else { return Vec::new() };
    let Some(service) = target.service.as_ref().filter(|s| s.selector().is_some_and(|l| !l.is_empty())) else {
        return Vec::new();
    };
    let drift = drift(facts, target, service);
    if drift.is_empty() {
        return Vec::new();
    }
    let stands = |name: &str| service.pods.iter().any(|p| pod::name(p) == name && pod::is_live(p) && pod::is_ready(p));
    let serves = service.usable().any(|e| e.pod.is_none_or(stands));
    let lease = ObjectRef::namespaced("Lease", "kube-system", "kube-controller-manager");
    let holder = silence.lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
    let found = check
        .found(target, lease.clone())
        .with("seconds", silence.seconds)
        .with("holder", holder)
        .severity(if serves { Severity::Warning } else { unless_it_answers(target) })
        .confidence(if silence.proven { Confidence::Certain } else { Confidence::Likely })
        .because(field(&lease, "spec.renewTime", silence.renewed.to_string()));
    vec![drift.into_iter().fold(found, Finding::because).because_of(target.reach.failure())]
}

/// What the controllers would have put right: pods that no slice names, endpoints whose pods are gone, pods that were
/// never made. One of each is enough.
fn drift(facts: &Facts<'_>, target: &TargetFacts<'_>, service: &ServiceFacts<'_>) -> Vec<Evidence> {
    let namespace = &target.target.namespace;
    let mut found = Vec::new();
    let listed = |p: &Pod| {
        let ip = p.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        ip.is_none_or(|ip: std::net::IpAddr| service.endpoints.iter().any(|e| e.ip == ip))
    };
    let long_ready = |p: &Pod| pod::is_ready(p) && pod::ready_for(p, facts.now()).is_none_or(|s| s >= PATIENCE);
    if let Some(left_out) = service.live_pods().find(|p| long_ready(p) && !listed(p)) {
        let object = ObjectRef::namespaced("Pod", namespace, pod::name(left_out));
        found.push(Evidence::Count { object, what: "endpoints".to_owned(), have: 0, want: 1 });
    }
    let there = |name: &str| {
        let mut pods = facts.snapshot.objects.pods.iter();
        pods.any(|p| pod::name(p) == name && p.metadata.namespace.as_deref() == Some(namespace))
    };
    if let Some(gone) = service.endpoints.iter().filter_map(|e| e.pod).find(|name| !there(name)) {
        found.push(Evidence::Absent { object: ObjectRef::namespaced("Pod", namespace, gone) });
    }
    let unmade = service.deployment.filter(|d| service.deployment_matches && service::replicas(d) > 0);
    if let Some(unmade) = unmade.filter(|_| service.pods.is_empty()) {
        let name = unmade.metadata.name.as_deref().unwrap_or_default();
        let object = ObjectRef::namespaced("Deployment", namespace, name);
        found.push(field(&object, "spec.replicas", service::replicas(unmade)));
        let made = unmade.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        found.push(field(&object, "status.replicas", made));
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn leases(controllers: &str, scheduler: &str) -> serde_json::Value {
        let lease = |name: &str, renewed: &str| {
            json!({"metadata": {"name": name, "namespace": "kube-system"},
                "spec": {"holderIdentity": "cp1_1", "renewTime": renewed}})
        };
        json!([lease("kube-controller-manager", controllers), lease("kube-scheduler", scheduler)])
    }

    fn moved(mut sample: Sample) -> Sample {
        sample.0["objects"]["leases"] = leases("2026-11-23T11:50:00.000000Z", "2026-11-23T11:59:59.000000Z");
        sample.pod()["metadata"]["name"] = json!("productpage-v1-7d8c-newer");
        sample.pod()["status"]["podIP"] = json!("10.244.0.9");
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn slices_that_name_a_pod_that_is_gone() {
        let mut sample = moved(Sample::healthy());
        sample.probes(&["nodeToPod", "podProxy", "portForward"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(1310, Severity::Error)]);
    }

    #[test]
    fn pods_that_are_never_made() {
        let mut sample = Sample::healthy();
        sample.0["objects"]["leases"] = leases("2026-11-23T11:50:00.000000Z", "2026-11-23T11:59:59.000000Z");
        sample.without_pods();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1310, Severity::Error)]);
    }

    #[test]
    fn a_clock_that_nobody_confirms_makes_it_likely() {
        let mut sample = moved(Sample::from_laptop());
        assert_eq!(sample.finding(1310).confidence, Confidence::Certain);
        sample.0["objects"]["leases"] = leases("2026-11-23T11:50:00.000000Z", "2026-11-23T11:50:00.000000Z");
        assert_eq!(sample.finding(1310).confidence, Confidence::Likely);
    }

    #[test]
    fn a_controller_that_lives_will_get_there() {
        let mut sample = moved(Sample::healthy());
        sample.0["objects"]["leases"] = leases("2026-11-23T11:59:59.000000Z", "2026-11-23T11:59:59.000000Z");
        assert!(sample.said().iter().all(|(code, _)| *code != 1310));
    }
}
