//! BA2306: some of the replicas answer rightly and others do not: every so many requests fail.

use crate::check::{Check, Hop, where_it_hurts};
use crate::facts::{Endpoint, Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(2306),
    slug: "some-replicas-bad",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods],
    either: &[Input::PodProxy, Input::NodeSettings],
    remedies: &[ActionName::MendWorkload],
    explains: &[Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = target.exposed().filter(|s| s.is_sound()) else { return Vec::new() };
    let (mut good, mut bad): (Vec<&Probe>, Vec<(&str, &Probe)>) = (Vec::new(), Vec::new());
    // An endpoint whose pod is gone is no replica any more.
    let there = |e: &&Endpoint<'_>| service.pods.is_empty() || service.pod_of(e).is_some();
    let mut names: Vec<&str> = service.usable().filter(there).filter_map(|e| e.pod).collect();
    names.dedup();
    for name in &names {
        let probes: Vec<&Probe> = target.reach.to_pod(name).collect();
        if let Some(right) = probes.iter().find(|p| p.outcome.is_right()) {
            good.push(right);
        } else if let Some(wrong) = probes.iter().find(|p| speaks_ill(&p.outcome)) {
            bad.push((name, wrong));
        }
    }
    let (Some(right), Some((name, wrong))) = (good.first(), bad.first()) else { return Vec::new() };
    let young = service.live_pods().any(|p| pod::name(p) == *name && pod::is_warming(p, Some(wrong.port), facts.now()));
    if young {
        return Vec::new();
    }
    // That one refuses and another answers is seen, whichever of them the page's own dial met; that an answer is wrong
    // depends on what is asked.
    let (severity, confidence) = match wrong.outcome {
        Outcome::Refused => (Severity::Error, Confidence::Certain),
        _ => (where_it_hurts(target), Confidence::Likely),
    };
    let found = check
        .found(target, ObjectRef::namespaced("Pod", &target.target.namespace, name))
        .with("pod", name)
        .with("bad", bad.len())
        .with("probed", good.len() + bad.len())
        .severity(severity)
        .confidence(confidence);
    vec![found.because_of([*wrong, *right]).because_of(target.reach.failure())]
}

/// The pod itself turned the request away. Where packets vanish the way may be to blame.
fn speaks_ill(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Refused | Outcome::Reset | Outcome::Empty | Outcome::NotHttp | Outcome::Http { right: false, .. }
    )
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn second_replica(outcome: &str) -> Sample {
        let mut sample = Sample::healthy();
        sample.second_pod("productpage-v1-7d8c-bad", "10.244.1.9", outcome);
        sample
    }

    #[test]
    fn that_the_page_answers_now_and_then_is_no_excuse() {
        let mut sample = second_replica("refused");
        assert_eq!(sample.said(), [(2306, Severity::Error)]);
        assert_eq!(second_replica("reset").said(), [(2306, Severity::Warning)]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said()[0], (2306, Severity::Error));
    }

    #[test]
    fn an_endpoint_whose_pod_is_gone_is_the_controllers_matter() {
        let mut sample = second_replica("refused");
        if let Some(pods) = sample.objects("pods").as_array_mut() {
            pods.pop();
        }
        assert!(sample.said().iter().all(|(code, _)| *code != 2306));
    }

    #[test]
    fn a_replica_that_is_out_of_reach_is_not_accused() {
        assert_eq!(second_replica("timeout").said(), []);
    }
}
