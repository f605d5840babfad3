//! Whatever is found and planned for the checks' own fixtures, its document keeps to the schema.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::Diagnosis;
use super::json::{Document, SCHEMA};
use crate::check;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::model::{Allow, Input, Snapshot, Vantage};
use crate::plan::plan;
use crate::plan::tests::{consent, fixtures};

#[test]
fn every_finding_and_every_step_is_described() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let policy = consent(&[Allow::System, Allow::Node, Allow::Policy, Allow::Workload]);
    for (name, fixture) in fixtures() {
        let snapshot: Snapshot = serde_json::from_value(fixture.clone()).unwrap();
        let facts = Facts::derive(&snapshot);
        let report = check::run(&facts);
        let plan = plan(&facts, &report.findings, &policy);
        let view = Diagnosis::of(&facts, &report, plan);
        let document = serde_json::to_value(Document::diagnosis(&view, Exit::Problem)).unwrap();
        assert_eq!(keeps(&schema, &schema, &document), Ok(()), "{name}");
    }
}

/// All of an enum: one more does not compile until it stands here.
macro_rules! every {
    ($kind:ident: $($name:ident)*) => {{
        let _known = |one: $kind| match one {
            $($kind::$name => {})*
        };
        vec![$($kind::$name),*]
    }};
}

#[test]
fn every_vantage_and_every_input_is_described() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let described = |at: &str, word: Value| {
        let words = schema.pointer(at).and_then(Value::as_array).unwrap();
        assert!(words.contains(&word), "{word} is not in {at}");
    };
    let vantages = every!(Vantage: Client Outsider PodProxy NodeProxy PortForward NodeToPod ProbePod SmallPackets HttpProxy
        Kubelet);
    for vantage in vantages {
        described("/$defs/probe/properties/vantage/enum", json!(vantage));
    }
    let inputs = every!(Input: Services EndpointSlices Pods Deployments Nodes Namespaces Events PodLogs NetworkPolicies
        KubeProxy Leases Endpoints ApiServer ClientProbe OutsiderProbe PodProxy NodeProxy PortForward Rules NodeSettings
        Firewall Answering HttpProxy Kubelet ProbePod OtherPolicies);
    for input in inputs {
        described("/$defs/gap/properties/input/enum", json!(input));
        described("/$defs/skipped/properties/input/enum", json!(input));
    }
}

#[test]
fn the_schema_refuses_what_is_not_in_it() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let good = json!({"apiVersion": "bookaccess.dev/v1alpha1", "kind": "Status", "exitCode": 0, "targets": []});
    assert_eq!(keeps(&schema, &schema, &good), Ok(()));
    for (field, value) in [("kind", json!("Other")), ("exitCode", json!("0")), ("more", json!(1))] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(keeps(&schema, &schema, &bad).is_err(), "{bad}");
    }
}

/// The part of JSON Schema that ours uses. Stricter in one point: a property must be described.
pub(super) fn keeps(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let at = reference.trim_start_matches('#');
        return keeps(root, root.pointer(at).ok_or_else(|| format!("no {reference}"))?, value);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let refusals: Vec<String> = options.iter().filter_map(|o| keeps(root, o, value).err()).collect();
        return match options.len() - refusals.len() {
            1 => Ok(()),
            0 => Err(refusals.join(" | ")),
            n => Err(format!("{n} shapes fit {value}")),
        };
    }
    if let Some(constant) = schema.get("const") {
        return if constant == value { Ok(()) } else { Err(format!("{value} is not {constant}")) };
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return if allowed.contains(value) { Ok(()) } else { Err(format!("{value} is not among {allowed:?}")) };
    }
    match (schema["type"].as_str(), value) {
        (None, _) | (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) => Ok(()),
        (Some("integer"), Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(()),
        (Some("array"), Value::Array(items)) => items.iter().try_for_each(|item| keeps(root, &schema["items"], item)),
        (Some("object"), Value::Object(fields)) => {
            let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                fields.get(name).ok_or_else(|| format!("{name} is missing"))?;
            }
            fields.iter().try_for_each(|(name, field)| {
                let described = properties.get(name).ok_or_else(|| format!("{name} is not described"))?;
                keeps(root, described, field).map_err(|why| format!("{name}: {why}"))
            })
        }
        (Some(kind), value) => Err(format!("{value} is no {kind}")),
    }
}
