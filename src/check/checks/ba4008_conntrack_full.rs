//! BA4008: the node tracks as many connections as it can; new ones are dropped.

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4008),
    slug: "conntrack-full",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::NodeSettings],
    either: &[],
    remedies: &[ActionName::RaiseConntrack],
    explains: &[Code(4004), Code(5011), Code(5012)],
    run,
};

/// Per cent of the table from which the next rush fills it.
const NEARLY: u64 = 90;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(node), Some(host), Some(_)) = (here, &facts.snapshot.host, target.exposed()) else { return Vec::new() };
    let value = |name: &str| host.sysctls.get(&format!("net.netfilter.{name}")).and_then(|v| v.parse::<u64>().ok());
    let (Some(count), Some(most)) = (value("nf_conntrack_count"), value("nf_conntrack_max")) else { return Vec::new() };
    // 0 is no limit.
    if most == 0 || count.saturating_mul(100) < most.saturating_mul(NEARLY) {
        return Vec::new();
    }
    let lost = target.reach.answers == Some(false) && target.reach.decisive.iter().any(|p| p.outcome.dropped());
    let full = count >= most;
    let (severity, confidence) = match (lost && target.stuck().is_some(), full) {
        (true, true) => (Severity::Error, Confidence::Certain),
        (true, false) => (Severity::Error, Confidence::Likely),
        (false, _) => (Severity::Warning, Confidence::Certain),
    };
    let object = ObjectRef::cluster("Node", node);
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let counted = Evidence::Count {
        object: object.clone(),
        what: "conntrack".to_owned(),
        have: number(count),
        want: number(most),
    };
    let found = check.found(target, object).with("node", node).with("count", count).with("most", most);
    let found = found.severity(severity).confidence(confidence);
    vec![found.because(counted).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn tracked(count: &str) -> Sample {
        let mut sample = Sample::healthy();
        let sysctls = &mut sample.0["host"]["sysctls"];
        sysctls["net.netfilter.nf_conntrack_max"] = json!("1000");
        sysctls["net.netfilter.nf_conntrack_count"] = json!(count);
        sample
    }

    #[test]
    fn a_full_table_is_the_cause_of_what_is_lost() {
        let mut sample = tracked("1000");
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4008, Severity::Error)]);
    }

    #[test]
    fn a_nearly_full_one_is_a_warning() {
        assert_eq!(tracked("950").said(), [(4008, Severity::Warning)]);
        assert_eq!(tracked("850").said(), []);
    }
}
