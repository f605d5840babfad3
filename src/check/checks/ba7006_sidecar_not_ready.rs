//! BA7006: the application is ready, but the mesh's proxy in its pod is not, so the pod takes no connections.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(7006),
    slug: "sidecar-not-ready",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(2004), Code(2101), Code(2103)],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.service.as_ref().filter(|s| s.usable().next().is_none()) else { return Vec::new() };
    // A first start takes its time, the proxy's as well as the application's.
    if target.settling {
        return Vec::new();
    }
    let sick = service.live_pods().find_map(|p| {
        let main = p.status.as_ref()?.container_statuses.as_deref().unwrap_or_default();
        let mut application = main.iter().filter(|s| !pod::MESHES.contains(&s.name.as_str())).peekable();
        let well = application.peek().is_some() && application.all(|s| s.ready);
        let sidecar = pod::statuses(p).find(|s| pod::MESHES.contains(&s.name.as_str()) && !s.ready)?;
        Some((p, sidecar)).filter(|_| well)
    });
    let Some((sick, sidecar)) = sick else { return Vec::new() };
    let name = pod::name(sick);
    let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
    let waiting = sidecar.state.as_ref().and_then(|s| s.waiting.as_ref());
    let found = check
        .found(target, object.clone())
        .with("pod", name)
        .with("sidecar", &sidecar.name)
        .severity(unless_it_answers(target));
    vec![found.because(Evidence::Container {
        object,
        container: sidecar.name.clone(),
        reason: waiting.and_then(|w| w.reason.clone()).unwrap_or_else(|| "NotReady".to_owned()),
        message: waiting.and_then(|w| w.message.clone()).unwrap_or_default(),
    })]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn injected(application: bool, sidecar: bool) -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        let status = |name: &str, ready: bool| {
            json!({"name": name, "image": name, "imageID": "", "ready": ready, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-23T09:00:00Z"}}})
        };
        sample.pod()["status"]["containerStatuses"] =
            json!([status("productpage", application), status("istio-proxy", sidecar)]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_sidecar_is_named_in_the_pods_stead() {
        assert_eq!(injected(true, false).said(), [(7006, Severity::Error)]);
    }

    #[test]
    fn an_application_that_is_not_ready_is_its_own_matter() {
        assert_eq!(injected(false, true).said(), [(2101, Severity::Error)]);
        assert_eq!(injected(false, false).said(), [(2101, Severity::Error)]);
    }
}
