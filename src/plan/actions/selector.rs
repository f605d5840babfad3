//! Makes the Service's selector match the pods of its Deployment.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{arg, deployment, identify, patching, service};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};
use crate::plan::patch;

/// Labels that name an application, best first, for a selector of which no key is right.
const APPLICATION_LABELS: [&str; 3] = ["app", "app.kubernetes.io/name", "k8s-app"];

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?.service;
    let deployment = deployment(target)?;
    let spec = deployment.spec.as_ref();
    let labels = spec.and_then(|s| s.template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let current = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    let wanted = wanted(current, &labels).or_else(|| spec?.selector.match_labels.clone()).unwrap_or_default();
    let changes = changes(current, &wanted);
    if wanted.is_empty() || changes.is_empty() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target.to_string()));
    }
    let object = identify("Service", &service.metadata);
    let mut step = patching(ActionName::Selector, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "from", current.map(list).unwrap_or_default());
    arg(&mut step, "to", list(&wanted));
    arg(&mut step, "deployment", deployment.metadata.name.as_deref().unwrap_or_default());
    Ok(step)
}

/// The present keys with the template's values; where no key is right, the label that names the application.
fn wanted(
    current: Option<&BTreeMap<String, String>>,
    labels: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let pick = |keys: &mut dyn Iterator<Item = &str>| -> BTreeMap<String, String> {
        keys.filter_map(|k| labels.get(k).map(|v| (k.to_owned(), v.clone()))).collect()
    };
    let kept = pick(&mut current.into_iter().flatten().map(|(k, _)| k.as_str()));
    if !kept.is_empty() {
        return Some(kept);
    }
    Some(pick(&mut APPLICATION_LABELS.into_iter().filter(|k| labels.contains_key(*k)).take(1)))
        .filter(|m| !m.is_empty())
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
