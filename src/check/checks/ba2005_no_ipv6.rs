//! BA2005: the application binds an IPv6 address (gunicorn's [::]), and its node's kernel has no IPv6.

use crate::check::{Check, Hop, unless_it_answers};
use crate::facts::pod::{self, TroubleKind};
use crate::facts::{Facts, TargetFacts, log};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2005),
    slug: "no-ipv6",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::PodLogs],
    either: &[],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(2004)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    let namespace = &target.target.namespace;
    for sick in service.live_pods() {
        let name = pod::name(sick);
        let Some(trouble) = pod::trouble(sick).filter(|t| t.kind == TroubleKind::Crash) else { continue };
        let logged = facts.snapshot.objects.crash_logs.get(&format!("{namespace}/{name}")).map(String::as_str);
        // A container may leave the end of its log as its termination message.
        let left = pod::last_words(sick, trouble.container);
        let line = [logged, left].into_iter().flatten().find_map(|t| t.lines().find(|l| log::lacks_ipv6(l)));
        let Some(line) = line else { continue };
        let spared = service.usable().next().is_some();
        let object = ObjectRef::namespaced("Pod", namespace, name);
        let found = check
            .found(target, object.clone())
            .with("pod", name)
            .with("container", trouble.container)
            .with("deployment", service.deployment.and_then(|d| d.metadata.name.as_deref()).unwrap_or_default())
            .with("node", pod::node(sick).unwrap_or_default())
            .severity(if spared { Severity::Warning } else { unless_it_answers(target) });
        let state = Evidence::Container {
            object: object.clone(),
            container: trouble.container.to_owned(),
            reason: trouble.reason.to_owned(),
            message: trouble.message.to_owned(),
        };
        return vec![found.because(Evidence::Log { object, line: line.trim().to_owned() }).because(state)];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn crashing() -> Sample {
        let mut sample = Sample::healthy();
        sample.unready();
        sample.pod()["status"]["containerStatuses"] = json!([{"name": "productpage", "image": "productpage:v1",
            "imageID": "", "ready": false, "restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]);
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    const WORDS: &str = "OSError: [Errno 97] Address family not supported by protocol";

    #[test]
    fn its_log_or_its_last_words_tell() {
        let mut sample = crashing();
        sample.0["objects"]["crashLogs"] =
            json!({"bookinfo/productpage-v1-7d8c-abcde": format!("Traceback\n{WORDS}\n")});
        assert_eq!(sample.said(), [(2005, Severity::Error)]);
        let mut sample = crashing();
        sample.pod()["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"] = json!(WORDS);
        assert_eq!(sample.said(), [(2005, Severity::Error)]);
    }

    #[test]
    fn another_crash_is_another_matter() {
        let mut sample = crashing();
        sample.0["objects"]["crashLogs"] =
            json!({"bookinfo/productpage-v1-7d8c-abcde": "OSError: [Errno 98] Address already in use"});
        assert_eq!(sample.said(), [(2004, Severity::Error)]);
    }
}
