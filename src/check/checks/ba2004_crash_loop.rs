//! BA2004: the container starts and ends again and again.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::pod::{self, TroubleKind};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2004),
    slug: "crash-loop",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::RolloutUndo, ActionName::MendWorkload],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let troubled = |p| Some((p, pod::trouble(p).filter(|t| t.kind == TroubleKind::Crash)?));
    let Some((sick, trouble)) = service.live_pods().find_map(troubled) else { return Vec::new() };
    let spared = service.usable().next().is_some();
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, pod::name(sick));
    let found = check
        .found(target, object.clone())
        .with("pod", pod::name(sick))
        .with("container", trouble.container)
        .with("reason", trouble.reason)
        .with("exit_code", trouble.exit_code.map(|c| c.to_string()).unwrap_or_default())
        .with("restarts", trouble.restarts)
        .severity(if spared { Severity::Warning } else { unless_it_answers(target) });
    vec![found.because(Evidence::Container {
        object,
        container: trouble.container.to_owned(),
        reason: trouble.reason.to_owned(),
        message: trouble.message.to_owned(),
    })]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn the_exit_code_of_the_last_run_is_named() {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["status"]["containerStatuses"] = json!([{"name": "productpage", "image": "productpage:v1",
            "imageID": "", "ready": false, "restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(2004, Severity::Error)]);
        assert_eq!(sample.finding(2004).arg("exit_code"), "3");
    }

    #[test]
    fn a_container_that_crashed_once_and_serves_is_well() {
        let mut sample = Sample::healthy();
        sample.pod()["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        sample.pod()["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 1}});
        assert_eq!(sample.said(), []);
    }
}
