//! BA1304: a label tells kube-proxy to leave the Service to another service proxy, and that one does not serve it.

use crate::check::{Check, Hop, field};
use crate::facts::proxy::Kind;
use crate::facts::service::PROXY_NAME;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1304),
    slug: "service-proxy-name",
    hop: Hop::Service,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[ActionName::ServiceProxyName],
    explains: &[Code(3018), Code(3019), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed() else { return Vec::new() };
    let Some(name) = service.other_proxy() else { return Vec::new() };
    // Where the page answers the proxy that is named does its work.
    if target.reach.answers != Some(false) {
        return Vec::new();
    }
    let confidence = match facts.proxy.kind {
        Kind::DaemonSet | Kind::Embedded => Confidence::Certain,
        // Others need not heed the label.
        Kind::Replaced | Kind::Absent | Kind::Unknown => Confidence::Likely,
    };
    let object = target.target.service_ref();
    let found = check.found(target, object.clone()).with("proxy", name).confidence(confidence);
    let label = field(&object, format!("metadata.labels[{PROXY_NAME}]"), name);
    vec![found.because(label).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn labelled() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["metadata"]["labels"] = json!({super::PROXY_NAME: "mesh-proxy"});
        sample
    }

    #[test]
    fn rules_that_kube_proxy_never_writes_are_its_consequence() {
        let mut sample = labelled();
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(1304, Severity::Error)]);
    }

    #[test]
    fn another_proxy_that_serves_the_page_is_right() {
        assert_eq!(labelled().said(), []);
    }

    #[test]
    fn a_proxy_that_nobody_could_see_may_not_heed_it() {
        let mut sample = labelled();
        sample.answer(json!({"outcome": "refused"}));
        *sample.objects("daemonSets") = json!([]);
        *sample.objects("kubeProxyPods") = json!([]);
        assert_eq!(sample.finding(1304).confidence, Confidence::Likely);
    }
}
