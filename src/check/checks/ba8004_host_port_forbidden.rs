//! BA8004: the namespace's Pod Security Standard forbids the hostPort that the page's pods ask for.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod, service};
use crate::model::container::of_template;
use crate::model::{Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(8004),
    slug: "host-port-forbidden",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Deployments, Input::Namespaces],
    either: &[],
    // The standard was set on purpose.
    remedies: &[],
    explains: &[Code(2002)],
    run,
};

/// The label by which Pod Security Admission is told what to enforce, and the levels that forbid hostPorts.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const FORBID: [&str; 2] = ["baseline", "restricted"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let Some(deployment) = service.deployment.filter(|_| service.deployment_matches) else { return Vec::new() };
    let template = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    let ports = template.map(|t| pod::host_ports(&of_template(t))).unwrap_or_default();
    let namespace = &target.target.namespace;
    let homes = &facts.snapshot.objects.namespaces;
    let home = homes.iter().find(|n| n.metadata.name.as_deref() == Some(namespace));
    let level = home.and_then(|n| n.metadata.labels.as_ref()?.get(ENFORCE)).filter(|l| FORBID.contains(&l.as_str()));
    let (Some(port), Some(level)) = (ports.first(), level) else { return Vec::new() };
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::namespaced("Deployment", namespace, name);
    let violates = |m: &&str| m.contains("violates PodSecurity") && m.contains("hostPort");
    let refused = service::replica_failure(deployment).filter(violates);
    let hurts = refused.is_some() && service.usable().next().is_none();
    let mut found = check
        .found(target, object.clone())
        .with("deployment", name)
        .with("host_port", port)
        .with("level", level)
        // Pods that were there before the label live on; the next one is refused.
        .severity(if hurts { unless_it_answers(target) } else { Severity::Warning })
        .because(field(
            &ObjectRef::cluster("Namespace", namespace),
            format!("metadata.labels[{ENFORCE}]"),
            level.as_str(),
        ));
    if let Some(message) = refused {
        found = found.because(Evidence::Condition {
            object,
            condition: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            message: message.to_owned(),
        });
    }
    vec![found]
}

#[cfg(test)]
mod tests {
    use super::ENFORCE;
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn standard(level: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.deployment()["spec"]["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(30080);
        sample.objects("namespaces")[0]["metadata"]["labels"] = json!({ENFORCE: level});
        sample
    }

    #[test]
    fn the_next_pod_is_refused_while_the_old_one_lives() {
        assert_eq!(standard("baseline").said(), [(8004, Severity::Warning)]);
        assert_eq!(standard("privileged").said(), []);
    }

    #[test]
    fn without_the_old_one_there_is_none() {
        let mut sample = standard("restricted");
        sample.without_pods();
        let message = "pods \"productpage-v1-x\" is forbidden: violates PodSecurity \"restricted:latest\": hostPort \
                       (container \"productpage\" uses hostPort 30080)";
        sample.deployment()["status"]["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "message": message}]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(8004, Severity::Error)]);
    }
}
