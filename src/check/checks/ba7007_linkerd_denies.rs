//! BA7007: Linkerd's default policy for what comes to the pod lets in nobody without the mesh's identity.

use crate::check::{Check, Hop, field, mesh};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7007),
    slug: "linkerd-denies",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::PortForward],
    either: &[],
    remedies: &[],
    explains: &[Code(2305), Code(2306), Code(3018)],
    run,
};

/// Set on a pod or its namespace (linkerd.io, "Authorization Policy").
const POLICY: &str = "config.linkerd.io/default-inbound-policy";

/// The values of it that let a browser in.
const OPEN: [&str; 2] = ["all-unauthenticated", "audit"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let ended = |o: &Outcome| {
        matches!(o, Outcome::Reset | Outcome::Empty | Outcome::Refused | Outcome::Http { status: 403, right: false })
    };
    let guarded = |p: &Pod| pod::has_sidecar(p, "linkerd-proxy");
    let Some(stopped) = mesh::stopped(target, guarded, ended) else { return Vec::new() };
    let namespace = &target.target.namespace;
    let of_pod = stopped.pod.metadata.annotations.as_ref().and_then(|a| a.get(POLICY));
    let home = facts.snapshot.objects.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(namespace));
    let of_namespace = || home?.metadata.annotations.as_ref()?.get(POLICY);
    let name = pod::name(stopped.pod);
    let object = ObjectRef::namespaced("Pod", namespace, name);
    let (bearer, value) = match (of_pod, of_namespace()) {
        (Some(value), _) => (object.clone(), value),
        (None, Some(value)) => (ObjectRef::cluster("Namespace", namespace), value),
        // The whole mesh's default is not written here.
        (None, None) => return Vec::new(),
    };
    if OPEN.contains(&value.as_str()) {
        return Vec::new();
    }
    let found = check.found(target, object).with("pod", name).with("value", value);
    vec![stopped.tell(found.because(field(&bearer, format!("metadata.annotations[{POLICY}]"), value.as_str())))]
}

#[cfg(test)]
mod tests {
    use super::POLICY;
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn meshed(value: &str) -> Sample {
        let mut sample = Sample::healthy();
        if let Some(containers) = sample.pod()["spec"]["containers"].as_array_mut() {
            containers.push(json!({"name": "linkerd-proxy", "image": "proxy"}));
        }
        sample.pod()["metadata"]["annotations"] = json!({POLICY: value});
        let answer = json!({"outcome": "http", "status": 403, "right": false});
        sample.probes(&["podProxy", "nodeToPod"], None, answer.clone());
        sample.answer(answer);
        sample
    }

    #[test]
    fn only_the_meshs_own_get_in() {
        assert_eq!(meshed("all-authenticated").said(), [(7007, Severity::Error)]);
        assert_eq!(meshed("deny").said(), [(7007, Severity::Error)]);
        assert!(meshed("all-unauthenticated").said().iter().all(|(code, _)| *code != 7007));
    }

    #[test]
    fn the_namespace_may_say_it_for_all_its_pods() {
        let mut sample = meshed("deny");
        sample.pod()["metadata"]["annotations"] = json!({});
        assert!(sample.said().iter().all(|(code, _)| *code != 7007));
        sample.objects("namespaces")[0]["metadata"]["annotations"] = json!({POLICY: "cluster-authenticated"});
        assert_eq!(sample.said(), [(7007, Severity::Error)]);
    }
}
