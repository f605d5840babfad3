//! BA0103: the address was typed with `https://`, and the page speaks plain HTTP.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Evidence, Finding, Input, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(103),
    slug: "https-on-http-port",
    hop: Hop::Client,
    // The page is there; only the URL that was typed does not open it.
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    // The URL is the user's.
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, _facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    if !target.target.https {
        return Vec::new();
    }
    let reach = &target.reach;
    let dialled = [&reach.decisive, &reach.client, &reach.outsider].into_iter().flatten().copied();
    // Every probe asks in plain HTTP.
    let Some(probe) = dialled.chain(reach.at_pods()).find(|p| p.outcome.is_right()) else { return Vec::new() };
    let found = check.found(target, target.target.service_ref()).with("path", &target.target.path);
    vec![found.because(Evidence::Probe { probe: probe.clone() })]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn typed() -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["targets"][0]["https"] = json!(true);
        sample
    }

    #[test]
    fn an_answer_in_plain_http_is_proof() {
        assert_eq!(typed().said(), [(103, Severity::Warning)]);
    }

    #[test]
    fn a_page_that_does_not_speak_http_may_well_speak_tls() {
        let mut sample = typed();
        sample.probes(&["client", "nodeProxy", "podProxy", "portForward"], None, json!({"outcome": "notHttp"}));
        assert!(sample.said().iter().all(|(code, _)| *code != 103));
    }
}
