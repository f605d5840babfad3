//! BA1307: the Service admits only some source addresses, and this cluster may apply that to the nodePort as well.

use crate::check::{Check, Hop, field};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1307),
    slug: "source-ranges",
    hop: Hop::Service,
    severity: Severity::Error,
    // From which address a browser is seen, nobody here knows.
    confidence: Confidence::Possible,
    inputs: &[Input::Services, Input::EndpointSlices, Input::KubeProxy],
    either: &[],
    remedies: &[ActionName::SourceRanges],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.stuck().filter(|s| s.kind() == "LoadBalancer") else { return Vec::new() };
    let ranges = service.spec().and_then(|s| s.load_balancer_source_ranges.as_deref()).unwrap_or_default();
    // kube-proxy filters what comes to the load balancer's address, never the nodePort.
    let vanishes = target.reach.answers == Some(false) && target.reach.decisive.iter().all(|p| p.outcome.dropped());
    if ranges.is_empty() || facts.proxy.kind != Kind::Replaced || !vanishes {
        return Vec::new();
    }
    let object = target.target.service_ref();
    let found = check.found(target, object.clone()).with("ranges", ranges.join(", "));
    let ranges = field(&object, "spec.loadBalancerSourceRanges", serde_json::json!(ranges));
    vec![found.because(ranges).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use serde_json::json;

    fn filtered() -> Sample {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("LoadBalancer");
        sample.service()["spec"]["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
        sample.answer(json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn kube_proxy_does_not_filter_the_node_port() {
        assert!(filtered().said().iter().all(|(code, _)| *code != 1307));
    }

    #[test]
    fn a_refusal_is_no_filter() {
        let mut sample = filtered();
        *sample.objects("daemonSets") = json!([{"metadata": {"name": "cilium", "namespace": "kube-system"}}]);
        sample.finding(1307);
        sample.answer(json!({"outcome": "refused"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 1307));
    }
}
