//! BA2003: the image cannot be had.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::pod::{self, TroubleKind};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2003),
    slug: "image-unavailable",
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
    let troubled = |p| Some((p, pod::trouble(p).filter(|t| t.kind == TroubleKind::Image)?));
    let Some((sick, trouble)) = service.live_pods().find_map(troubled) else { return Vec::new() };
    // Behind a Service with other ready pods this is a rollout that does not get on.
    let spared = service.usable().next().is_some();
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, pod::name(sick));
    let found = check
        .found(target, object.clone())
        .with("pod", pod::name(sick))
        .with("container", trouble.container)
        .with("image", trouble.image)
        .with("reason", trouble.reason)
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

    fn without_image() -> Sample {
        let mut sample = Sample::healthy();
        sample.pod()["status"]["phase"] = json!("Pending");
        sample.pod()["status"]["containerStatuses"] = json!([{"name": "productpage", "image": "productpage:v9",
            "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]);
        sample
    }

    #[test]
    fn the_image_is_named() {
        let mut sample = without_image();
        sample.unready();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(2003, Severity::Error)]);
        assert_eq!(sample.finding(2003).arg("image"), "productpage:v9");
    }

    #[test]
    fn a_rollout_that_does_not_get_on_is_a_warning() {
        assert_eq!(without_image().said(), [(2003, Severity::Warning)]);
    }
}
