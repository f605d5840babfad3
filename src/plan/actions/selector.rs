//! Makes the Service's selector match the pods of its Deployment, and those alone.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

use super::{arg, deployment, identify, patching, service};
use crate::facts::service::{matches, template_labels};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Change, Finding, Step, Text, Tier, Verify};
use crate::plan::patch;

/// Labels that name an application, best first, for a selector of which no key is right.
const APPLICATION_LABELS: [&str; 3] = ["app", "app.kubernetes.io/name", "k8s-app"];

pub(super) fn step(facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let service = service(target)?;
    let current = service.selector();
    let (wanted, deployment) = match narrowed(current, finding) {
        Some(wanted) => {
            let deployments = facts.index.deployments(&target.target.namespace);
            let own = deployments.iter().find(|d| matches(Some(&wanted), template_labels(d)));
            (wanted, own.copied().map_or_else(|| deployment(target), Ok)?)
        }
        None => {
            let deployment = deployment(target)?;
            let wanted = service.mended_selector().or_else(|| by_application(deployment));
            (wanted.unwrap_or_default(), deployment)
        }
    };
    let changes = changes(current, &wanted);
    if wanted.is_empty() || changes.is_empty() {
        return Err(Text::new("plan.cannot.nothing_to_change").with("object", target.target));
    }
    let object = identify("Service", &service.service.metadata);
    let mut step = patching(ActionName::Selector, Tier::T2, target, finding, object, changes, Verify::Cleared);
    arg(&mut step, "service", target.target);
    arg(&mut step, "from", current.map(list).unwrap_or_default());
    arg(&mut step, "to", list(&wanted));
    arg(&mut step, "deployment", deployment.metadata.name.as_deref().unwrap_or_default());
    Ok(step)
}

/// The selector with the label that the finding says is the page's alone, where it says one.
fn narrowed(current: Option<&BTreeMap<String, String>>, finding: &Finding) -> Option<BTreeMap<String, String>> {
    let (key, value) = finding.args.get("narrow")?.split_once('=')?;
    let mut wanted = current?.clone();
    wanted.insert(key.to_owned(), value.to_owned());
    Some(wanted)
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
