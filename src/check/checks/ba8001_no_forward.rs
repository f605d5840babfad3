//! BA8001: the page does not answer, and this user may not forward to its pods: the fallback by tunnel is barred.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{Code, Confidence, Finding, GapReason, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(8001),
    slug: "no-forward",
    hop: Hop::Client,
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    inputs: &[Input::Services],
    either: &[],
    // The user's rights.
    remedies: &[],
    explains: &[],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    // On a node the fallback goes to the pods directly.
    if target.reach.answers != Some(false) || facts.snapshot.stand.node.is_some() {
        return Vec::new();
    }
    let Some(gap) = facts.gap(Input::PortForward, target.target) else { return Vec::new() };
    let GapReason::Denied { verb, resource } = &gap.reason else { return Vec::new() };
    let object = ObjectRef::cluster("User", "kubeconfig");
    let found = check.found(target, object.clone()).with("verb", verb).with("resource", resource);
    vec![found.because(field(&object, "denied", format!("{verb} {resource}")))]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{GapReason, Input};
    use serde_json::json;

    fn denied() -> Sample {
        let mut sample = Sample::from_laptop();
        let reason = GapReason::Denied { verb: "create".into(), resource: "pods/portforward".into() };
        sample.gap(Input::PortForward, reason);
        sample.blind("portForward");
        sample
    }

    #[test]
    fn it_is_told_where_a_forward_is_called_for() {
        let mut sample = denied();
        sample.answer(json!({"outcome": "refused"}));
        assert!(sample.said().iter().any(|(code, _)| *code == 8001));
        assert_eq!(denied().said(), []);
    }

    #[test]
    fn on_a_node_nobody_needs_the_right() {
        let mut sample = denied();
        sample.answer(json!({"outcome": "refused"}));
        sample.0["stand"]["node"] = json!("cp1");
        assert!(sample.said().iter().all(|(code, _)| *code != 8001));
    }
}
