//! BA1005: the Service has a nodePort, but not the one that browsers dial.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1005),
    slug: "other-node-port",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[ActionName::ServiceNodePort],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed() else { return Vec::new() };
    let (Some(wanted), Some(actual), Some((index, _))) = (target.target.node_port, service.node_port(), service.port)
    else {
        return Vec::new();
    };
    if wanted == actual {
        return Vec::new();
    }
    // Rules that nobody has brought up to date may still lead the wanted port to the page.
    let severity = match target.reach.answers_on(facts.snapshot, wanted) {
        _ if !target.target.may_become_node_port() => Severity::Info,
        Some(false) => Severity::Error,
        Some(true) | None => Severity::Warning,
    };
    let object = target.target.service_ref();
    let dialled = target.reach.outsider.iter().chain(&target.reach.client).copied().filter(|p| p.port == wanted);
    let found = check.found(target, object.clone()).with("wanted", wanted).with("actual", actual).severity(severity);
    let path = format!("spec.ports[{index}].nodePort");
    vec![found.because(field(&object, path, actual)).because_of(dialled.filter(|p| !p.outcome.is_right()))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn other_port() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(31234);
        sample.0["host"]["rules"]["nodePorts"][0]["port"] = json!(31234);
        sample
    }

    #[test]
    fn it_is_an_error_only_where_the_wanted_port_is_silent() {
        let mut sample = other_port();
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1005, Severity::Error)]);
        assert_eq!(other_port().said(), [(1005, Severity::Warning)], "old rules still lead there");
    }

    #[test]
    fn nobody_asked_for_a_port_then_any_will_do() {
        let mut sample = other_port();
        sample.0["targets"][0]["nodePort"] = json!(null);
        assert_eq!(sample.said(), []);
    }
}
