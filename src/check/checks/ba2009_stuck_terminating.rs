//! BA2009: a pod on a dead node is being deleted for ever, and nothing takes its place.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, node, pod};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2009),
    slug: "stuck-terminating",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::Nodes],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

/// Seconds past the moment at which the pod should have been gone.
const PATIENCE: i64 = 60;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    for stuck in &service.pods {
        let Some(since) = &stuck.metadata.deletion_timestamp else { continue };
        let Some(on) = pod::node(stuck).filter(|_| facts.now().as_second() - since.0.as_second() >= PATIENCE) else {
            continue;
        };
        let home = facts.node(on);
        // A kubelet that is well still may have reasons to wait; one that is gone never confirms.
        if home.is_some_and(node::is_ready) {
            continue;
        }
        // A replacement that serves makes the old one a matter of tidiness, and so does one that is ready and that
        // nobody has put among the endpoints: what is missing there is another's fault.
        let ready = service.live_pods().any(pod::is_ready);
        let replaced = ready || service.usable().any(|e| e.pod != Some(pod::name(stuck)));
        let object = ObjectRef::namespaced("Pod", &target.target.namespace, pod::name(stuck));
        let found = check
            .found(target, object.clone())
            .with("pod", pod::name(stuck))
            .with("node", on)
            .severity(if replaced { Severity::Warning } else { unless_it_answers(target) });
        let found = found.because(field(&object, "metadata.deletionTimestamp", since.0.to_string()));
        let node = ObjectRef::cluster("Node", on);
        let dead = match home {
            Some(home) => {
                let (status, message) = node::ready(home);
                Evidence::Condition {
                    object: node,
                    condition: "Ready".to_owned(),
                    status: status.to_owned(),
                    message: message.to_owned(),
                }
            }
            None => Evidence::Absent { object: node },
        };
        return vec![found.because(dead).because_of(target.reach.failure())];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn terminating(since: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["metadata"]["deletionTimestamp"] = json!(since);
        sample.objects("nodes")[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "Unknown",
            "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn nobody_confirms_the_end_of_the_pod() {
        assert_eq!(terminating("2026-11-23T11:50:00Z").said(), [(2009, Severity::Error)]);
        let mut sample = terminating("2026-11-23T11:50:00Z");
        sample.objects("nodes").as_array_mut().into_iter().for_each(|n| n.truncate(1));
        assert_eq!(sample.said(), [(2009, Severity::Error)]);
    }

    #[test]
    fn a_pod_that_has_only_just_been_deleted_or_whose_node_lives_is_let_go() {
        assert!(terminating("2026-11-23T11:59:30Z").said().iter().all(|(code, _)| *code != 2009));
        let mut sample = terminating("2026-11-23T11:50:00Z");
        sample.objects("nodes")[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        assert!(sample.said().iter().all(|(code, _)| *code != 2009));
    }

    #[test]
    fn a_replacement_that_the_controllers_have_not_listed_is_their_matter() {
        let mut sample = terminating("2026-11-23T11:50:00Z");
        let mut next = Sample::healthy().pod().clone();
        next["metadata"]["name"] = json!("productpage-v1-7d8c-next");
        next["status"]["podIP"] = json!("10.244.0.9");
        sample.add("pods", next);
        let lease = |name: &str, renewed: &str| {
            json!({"metadata": {"name": name, "namespace": "kube-system"},
                "spec": {"holderIdentity": "cp1_1", "renewTime": renewed}})
        };
        *sample.objects("leases") = json!([
            lease("kube-controller-manager", "2026-11-23T11:50:00.000000Z"),
            lease("kube-scheduler", "2026-11-23T11:59:59.000000Z")
        ]);
        let said = sample.said();
        assert!(said.contains(&(1310, Severity::Error)) && !said.contains(&(2009, Severity::Error)), "{said:?}");
    }
}
