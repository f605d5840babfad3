//! BA7008: admission refuses what the page needs: its pods, or a Service of type NodePort.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, other_policies, service};
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7008),
    slug: "admission-forbids",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[Input::Deployments, Input::OtherPolicies],
    // Somebody decided so.
    remedies: &[],
    explains: &[Code(2002)],
    run,
};

/// The API server's words for a refusal by a webhook, and by a policy of its own.
const REFUSED: [&str; 2] = ["admission webhook \"", "ValidatingAdmissionPolicy '"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let namespace = &target.target.namespace;
    let refused = |m: &&str| REFUSED.iter().any(|words| m.contains(words));
    let deployment = service.deployment.filter(|_| service.deployment_matches && service.usable().next().is_none());
    if let Some((deployment, why)) =
        deployment.and_then(|d| Some((d, service::replica_failure(d).filter(|m| refused(m))?)))
    {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let object = ObjectRef::namespaced("Deployment", namespace, name);
        let condition = Evidence::Condition {
            object: object.clone(),
            condition: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            message: why.to_owned(),
        };
        let found = check.found(target, object).with("who", name).with("why", why);
        return vec![found.severity(unless_it_answers(target)).because(condition)];
    }
    // A repair would be refused: worth knowing before it is tried.
    if service.node_port().is_some() || !target.target.may_become_node_port() {
        return Vec::new();
    }
    let Some(policy) = other_policies::forbidding_node_ports(facts.snapshot, namespace) else { return Vec::new() };
    let object = other_policies::object(policy);
    let action = ["enforcementAction", "validationFailureAction"].into_iter().find_map(|key| {
        let value = policy.pointer(&format!("/spec/{key}"))?;
        Some(field(&object, format!("spec.{key}"), value.clone()))
    });
    // Gatekeeper denies where nothing else is said.
    let action = action.unwrap_or_else(|| field(&object, "spec.enforcementAction", "deny"));
    let found = check.found(target, object.clone()).with("who", &object).with("why", "type: NodePort");
    let found = found.severity(Severity::Warning).confidence(Confidence::Likely);
    vec![found.because(action)]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn refused(message: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.without_pods();
        sample.deployment()["status"]["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn who_refuses_the_pods_is_named() {
        let webhook = "admission webhook \"validation.gatekeeper.sh\" denied the request: no latest tag";
        assert_eq!(refused(webhook).said(), [(7008, Severity::Error)]);
        assert_eq!(refused("pods is forbidden: exceeded quota").said(), [(2002, Severity::Error)]);
    }

    #[test]
    fn a_policy_against_node_ports_is_told_before_the_repair() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("ClusterIP");
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(null);
        sample.answer(json!({"outcome": "refused"}));
        *sample.objects("otherPolicies") = json!([{"kind": "K8sBlockNodePort", "metadata": {"name": "no-node-ports"},
            "spec": {"match": {"excludedNamespaces": ["kube-system"]}}}]);
        assert_eq!(sample.said(), [(1002, Severity::Error), (7008, Severity::Warning)]);
        sample.objects("otherPolicies")[0]["spec"]["enforcementAction"] = json!("dryrun");
        assert_eq!(sample.said(), [(1002, Severity::Error)]);
    }
}
