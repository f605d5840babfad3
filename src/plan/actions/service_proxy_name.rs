//! Takes away the label that keeps kube-proxy from serving the Service.

use super::{arg, identify, patching, service, without_key};
use crate::facts::proxy::Kind;
use crate::facts::service::PROXY_NAME;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Finding, Step, Text, Tier, Verify};

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?.service;
    // Only where a kube-proxy is known to take over.
    if !matches!(facts.proxy.kind, Kind::DaemonSet | Kind::Embedded) {
        return Err(Text::new("action.service-proxy-name.no_kube_proxy"));
    }
    let labels = service.metadata.labels.as_ref();
    let change = labels
        .and_then(|l| without_key("/metadata/labels", l, PROXY_NAME))
        .ok_or_else(|| Text::new("plan.cannot.nothing_to_change").with("object", target.target))?;
    let proxy = labels.and_then(|l| l.get(PROXY_NAME)).cloned().unwrap_or_default();
    let object = identify("Service", &service.metadata);
    let (name, tier) = (ActionName::ServiceProxyName, Tier::T2);
    let mut step = patching(name, tier, target, finding, object, vec![change], Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "proxy", proxy);
    Ok(step)
}
