//! BA4002: the node that is dialled does not forward packets.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4002),
    slug: "forwarding-off",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::NodeSettings],
    either: &[],
    remedies: &[ActionName::SetKernel],
    explains: &[Code(4004), Code(5011), Code(5012)],
    run,
};

const SYSCTL: &str = "net.ipv4.ip_forward";

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let Some(node) = here.filter(|_| target.stuck().is_some() && target.reach.answers == Some(false)) else {
        return Vec::new();
    };
    let value = facts.snapshot.host.as_ref().and_then(|h| h.sysctls.get(SYSCTL));
    if value.map(String::as_str) != Some("0") || target.reach.address.is_some_and(|a| a.ip.is_ipv6()) {
        return Vec::new();
    }
    let object = ObjectRef::cluster("Node", node);
    let found = check.found(target, object.clone()).with("node", node);
    let found = found.with("setting", SYSCTL).with("from", "0").with("to", "1");
    vec![found.because(field(&object, SYSCTL, "0")).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn it_matters_only_where_the_page_fails() {
        let mut sample = Sample::healthy();
        sample.0["host"]["sysctls"]["net.ipv4.ip_forward"] = json!("0");
        assert_eq!(sample.said(), []);
        sample.answer(json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4002, Severity::Error)]);
    }
}
