//! BA0201: the credentials of the kubeconfig have ended, or end within a day. A run that is refused with 401 names this
//! code as well.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, GapReason, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(201),
    slug: "credentials-end",
    hop: Hop::Client,
    // Browsers need none.
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    remedies: &[],
    explains: &[],
    run,
};

/// Seconds. Tokens of some providers hold an hour and are renewed by a program: those are never seen here.
const SOON: i64 = 24 * 3600;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let now = facts.now();
    let end = facts.snapshot.client.credentials_end.filter(|end| end.as_second() - now.as_second() < SOON);
    let refused = facts.snapshot.gaps.iter().any(|g| g.reason == GapReason::Unauthorized);
    if end.is_none() && !refused {
        return Vec::new();
    }
    let object = ObjectRef::cluster("APIServer", &facts.snapshot.stand.server);
    let mut found = check.found(target, object.clone()).with("end", end.map(|e| e.to_string()).unwrap_or_default());
    if let Some(end) = end {
        found = found.because(field(&ObjectRef::cluster("User", "kubeconfig"), "notAfter", end.to_string()));
    }
    if refused {
        found = found.because(field(&object, "status", 401));
    }
    vec![found]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{GapReason, Input, Severity};
    use serde_json::json;

    fn ending(end: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["client"] = json!({"credentialsEnd": end});
        sample
    }

    #[test]
    fn the_last_day_is_told_and_a_month_is_not() {
        assert_eq!(ending("2026-11-23T18:00:00Z").said(), [(201, Severity::Warning)]);
        assert_eq!(ending("2026-11-23T11:00:00Z").said(), [(201, Severity::Warning)]);
        assert_eq!(ending("2026-12-23T12:00:00Z").said(), []);
    }

    #[test]
    fn a_refusal_in_the_middle_is_told_as_well() {
        let mut sample = Sample::from_laptop();
        sample.gap(Input::Events, GapReason::Unauthorized);
        assert_eq!(sample.said(), [(201, Severity::Warning)]);
    }
}
