//! BA0205: the API server takes long for a request that costs it nothing.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(205),
    slug: "api-server-slow",
    hop: Hop::Client,
    // The page does not come from the API server.
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Answering],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

/// Milliseconds. Around the world and back takes some 300.
const SLOW: u64 = 1000;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let millis = facts.snapshot.answering.as_ref().map(|a| a.millis);
    let Some(millis) = millis.filter(|m| *m >= SLOW) else { return Vec::new() };
    let object = ObjectRef::cluster("APIServer", &facts.snapshot.stand.server);
    let found = check.found(target, object.clone()).with("millis", millis);
    vec![found.because(field(&object, "responseMillis", millis))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn a_second_is_long() {
        for (millis, expected) in [(2013, vec![(205, Severity::Warning)]), (999, vec![]), (3, vec![])] {
            let mut sample = Sample::from_laptop();
            sample.0["answering"] = json!({"millis": millis});
            assert_eq!(sample.said(), expected, "{millis}");
        }
    }
}
