//! Lets the Service serve both IP families, where the cluster and its pods have both.

use serde_json::Value;

use super::{arg, identify, patching, service};
use crate::facts::endpoints::family;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};

const SINGLE: &str = "SingleStack";
const BOTH: &str = "PreferDualStack";

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let facts_of = service(target)?;
    let wanted = target.reach.address.map(|a| family(a.ip)).unwrap_or_default();
    let has_wanted = |pod: &crate::model::pod::Pod| {
        let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_deref()).unwrap_or_default();
        ips.iter().any(|ip| ip.ip.parse().is_ok_and(|ip| family(ip) == wanted))
    };
    let mut pods = facts_of.live_pods().peekable();
    if pods.peek().is_none() || !pods.all(has_wanted) {
        return Err(Text::new("action.ip-family.one_family").with("family", wanted));
    }
    let policy = facts_of.spec().and_then(|s| s.ip_family_policy.as_deref());
    // The API server sets the policy of every Service; it adds the second family and address, and takes both away again.
    if policy != Some(SINGLE) {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target));
    }
    let change = Change {
        path: "/spec/ipFamilyPolicy".to_owned(),
        from: Some(Value::from(SINGLE)),
        to: Some(Value::from(BOTH)),
    };
    let object = identify("Service", &facts_of.service.metadata);
    let mut step = patching(ActionName::IpFamily, Tier::T2, target, finding, object, vec![change], Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "family", wanted);
    Ok(step)
}
