//! BA0203: the clock of this machine and the API server's differ.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(203),
    slug: "clock-skew",
    hop: Hop::Client,
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Answering],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

/// Seconds. Tokens are refused from about a minute on.
const MUCH: u64 = 60;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let ahead = facts.snapshot.answering.as_ref().and_then(|a| a.clock_ahead);
    let Some(ahead) = ahead.filter(|s| s.unsigned_abs() >= MUCH) else { return Vec::new() };
    let object = ObjectRef::cluster("APIServer", &facts.snapshot.stand.server);
    let found = check
        .found(target, object.clone())
        .with("seconds", ahead.unsigned_abs())
        .with("here", facts.snapshot.taken_at)
        .with("there", facts.now());
    vec![found.because(field(&object, "clockAheadSeconds", ahead))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn skewed(ahead: i64) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["answering"] = json!({"millis": 4, "clockAhead": ahead});
        sample
    }

    #[test]
    fn a_minute_is_much_in_either_direction() {
        for ahead in [600, -600, 60] {
            assert_eq!(skewed(ahead).said(), [(203, Severity::Warning)], "{ahead}");
        }
        for ahead in [0, 3, -20] {
            assert_eq!(skewed(ahead).said(), [], "{ahead}");
        }
    }

    #[test]
    fn the_age_of_things_is_counted_by_the_clock_that_dated_them() {
        let mut sample = skewed(-3600);
        sample.0["takenAt"] = json!("2026-11-23T13:00:00Z");
        sample.with_facts(|facts| assert_eq!(facts.now().to_string(), "2026-11-23T12:00:00Z"));
    }
}
