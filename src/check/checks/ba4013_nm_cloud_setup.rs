//! BA4013: nm-cloud-setup gave the node's own address a routing table without the pods' networks.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4013),
    slug: "nm-cloud-setup",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::NodeSettings],
    either: &[],
    remedies: &[ActionName::PinToControlPlane],
    explains: &[Code(4004), Code(5002), Code(5003), Code(5004), Code(5011), Code(5012)],
    run,
};

/// The tables that NetworkManager's nm-cloud-setup makes (nm-cloud-setup/main.c).
const TABLES: [&str; 2] = ["30200", "30400"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(node), Some(host), Some(_)) = (here, &facts.snapshot.host, target.stuck()) else { return Vec::new() };
    let table = host.rule_tables.iter().find(|t| TABLES.contains(&t.as_str()));
    let lost = target.reach.decisive.iter().all(|p| p.outcome.dropped());
    let Some(table) = table.filter(|_| target.reach.answers == Some(false) && lost) else { return Vec::new() };
    let object = ObjectRef::cluster("Node", node);
    let found = check.found(target, object.clone()).with("node", node).with("table", table);
    vec![found.because(field(&object, "ip rule: table", table.as_str())).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn its_table_is_the_sign_where_packets_are_lost() {
        let mut sample = Sample::healthy();
        sample.0["host"]["ruleTables"] = json!(["local", "30400", "main"]);
        assert_eq!(sample.said(), []);
        sample.probes(&["outsider", "nodeToPod", "podProxy"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4013, Severity::Error)]);
    }
}
