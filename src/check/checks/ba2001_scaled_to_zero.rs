//! BA2001: the Deployment is scaled to 0.

use crate::check::{Check, Hop, field, unless_it_answers};
use crate::facts::{Facts, TargetFacts, service};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2001),
    slug: "scaled-to-zero",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::Deployments, Input::Pods],
    either: &[],
    remedies: &[ActionName::Scale],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let Some(deployment) = service.deployment.filter(|d| service.deployment_matches && service::replicas(d) == 0)
    else {
        return Vec::new();
    };
    if service.live_pods().next().is_some() {
        return Vec::new();
    }
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::namespaced("Deployment", &target.target.namespace, name);
    let found = check.found(target, object.clone()).with("deployment", name).severity(unless_it_answers(target));
    let none = Evidence::Count { object: target.target.service_ref(), what: "endpoints".into(), have: 0, want: 1 };
    vec![found.because(field(&object, "spec.replicas", 0)).because(none).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn it_alone_is_blamed() {
        let mut sample = Sample::healthy();
        sample.deployment()["spec"]["replicas"] = json!(0);
        sample.without_pods();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(2001, Severity::Error)]);
    }
}
