//! Makes the Service's selector match the pods of its Deployment.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

use super::{arg, deployment, identify, patching, service};
use crate::facts::service::template_labels;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};
use crate::plan::patch;

/// Labels that name an application, best first, for a selector of which no key is right.
const APPLICATION_LABELS: [&str; 3] = ["app", "app.kubernetes.io/name", "k8s-app"];

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let facts = service(target)?;
    let deployment = deployment(target)?;
    let current = facts.selector();
    let wanted = facts.mended_selector().or_else(|| by_application(deployment)).unwrap_or_default();
    let changes = changes(current, &wanted);
    if wanted.is_empty() || changes.is_empty() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target));
    }
    let object = identify("Service", &facts.service.metadata);
    let mut step = patching(ActionName::Selector, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "from", current.map(list).unwrap_or_default());
    arg(&mut step, "to", list(&wanted));
    arg(&mut step, "deployment", deployment.metadata.name.as_deref().unwrap_or_default());
    Ok(step)
}

/// The label of the template that names the application, else the Deployment's own selector.
pub(super) fn by_application(deployment: &Deployment) -> Option<BTreeMap<String, String>> {
    let labels = template_labels(deployment)?;
    let named = APPLICATION_LABELS.into_iter().find_map(|k| labels.get_key_value(k));
    let named = named.map(|(k, v)| BTreeMap::from([(k.clone(), v.clone())]));
    named.or_else(|| deployment.spec.as_ref()?.selector.match_labels.clone())
}

fn changes(current: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> Vec<Change> {
    let Some(current) = current else {
        return vec![Change { path: "/spec/selector".to_owned(), from: None, to: Some(super::json(wanted)) }];
    };
    let keys: std::collections::BTreeSet<&String> = current.keys().chain(wanted.keys()).collect();
    keys.into_iter()
        .filter(|k| current.get(*k) != wanted.get(*k))
        .map(|k| Change {
            path: format!("/spec/selector/{}", patch::escape(k)),
            from: current.get(k).map(|v| Value::from(v.as_str())),
            to: wanted.get(k).map(|v| Value::from(v.as_str())),
        })
        .collect()
}

fn list(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}
