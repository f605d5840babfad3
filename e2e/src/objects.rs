//! Objects before and after: what must be equal again once a fix is undone.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::cluster::Cluster;

/// Annotations that controllers and the API server write: their counters go on when a change is undone.
const CONTROLLER_WRITTEN: [&str; 2] = ["deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"];
/// What fixes may touch. The journal itself is not part of the state that is compared.
const KINDS: &str = "services,deployments,daemonsets,configmaps,namespaces,networkpolicies,clusterrolebindings";
/// Kubelets write them all the time: only what their owner decided is compared.
const NODES: &str = "nodes";
/// Taints of this kind are written by the node controller, as the node comes and goes.
const CONTROLLER_TAINTS: &str = "node.kubernetes.io/";
const JOURNAL: &str = "bookaccess-journal";

/// Kind, namespace and name to what the object's owner decided: spec or data, labels, annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects(BTreeMap<String, Value>);

/// Kind, namespace and name to the resourceVersion, which every write changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Versions(BTreeMap<String, String>);

impl Objects {
    /// Every object of those kinds in the cluster.
    pub fn read(cluster: &Cluster) -> Result<Self> {
        let list = cluster.get(&["-A", &format!("{KINDS},{NODES}")])?;
        Ok(Self(items(&list)?.iter().map(|item| (key(item), canonical(item))).collect()))
    }

    /// Fails with each difference, one a line.
    pub fn must_equal(&self, after: &Self) -> Result<()> {
        let mut lines = Vec::new();
        for (key, before) in &self.0 {
            match after.0.get(key) {
                None => lines.push(format!("{key} is gone")),
                Some(now) => differences(key, before, now, &mut lines),
            }
        }
        let new = after.0.keys().filter(|key| !self.0.contains_key(*key));
        lines.extend(new.map(|key| format!("{key} is new")));
        if lines.is_empty() {
            return Ok(());
        }
        bail!("the objects are not as they were:\n  {}", lines.join("\n  "))
    }
}

impl Versions {
    /// As [`Objects::read`], with the Leases of the applications' namespaces.
    pub fn read(cluster: &Cluster, namespaces: &[&str]) -> Result<Self> {
        let mut versions = BTreeMap::new();
        let mut add = |list: Value| -> Result<()> {
            for item in items(&list)? {
                let version = item["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                versions.insert(full_key(item), version.to_owned());
            }
            Ok(())
        };
        add(cluster.get(&["-A", KINDS])?)?;
        for namespace in namespaces {
            add(cluster.get(&["-n", namespace, "leases"])?)?;
        }
        Ok(Self(versions))
    }

    /// Fails with the names of what was written, made or removed since.
    pub fn must_equal(&self, after: &Self) -> Result<()> {
        let all = self.0.keys().chain(after.0.keys());
        let mut written: Vec<_> = all.filter(|key| self.0.get(*key) != after.0.get(*key)).collect();
        written.dedup();
        if written.is_empty() {
            return Ok(());
        }
        bail!("written, though nothing should be: {written:?}")
    }
}

fn items(list: &Value) -> Result<Vec<&Value>> {
    let items = list["items"].as_array().context("not a list")?;
    Ok(items.iter().filter(|item| item["metadata"]["name"] != JOURNAL).collect())
}

fn full_key(item: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &item["metadata"];
    format!("{} {}/{}", text(&item["kind"]), text(&meta["namespace"]), text(&meta["name"]))
}

fn key(item: &Value) -> String {
    full_key(item)
}

/// Spec or data, labels and annotations, without what controllers write.
pub fn canonical(object: &Value) -> Value {
    let mut kept = Map::new();
    for field in ["spec", "data", "binaryData", "roleRef", "subjects"] {
        if let Some(value) = object.get(field) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    if let Some(taints) = kept.get_mut("spec").and_then(|spec| spec.get_mut("taints")).and_then(Value::as_array_mut) {
        taints.retain(|taint| !taint["key"].as_str().is_some_and(|key| key.starts_with(CONTROLLER_TAINTS)));
        if taints.is_empty() {
            kept["spec"].as_object_mut().and_then(|spec| spec.remove("taints"));
        }
    }
    for field in ["labels", "annotations"] {
        let mut pairs = object["metadata"][field].as_object().cloned().unwrap_or_default();
        pairs.retain(|name, _| !CONTROLLER_WRITTEN.contains(&name.as_str()));
        kept.insert(field.to_owned(), Value::Object(pairs));
    }
    Value::Object(kept)
}

/// The leaves in which two values differ, as `path: before -> after`.
fn differences(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            let path = format!("{path}.{name}");
            differences(&path, &before[name.as_str()], &after[name.as_str()], lines);
        }
    } else if before != after {
        lines.push(format!("{path}: {before} -> {after}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn objects(list: &[Value]) -> Objects {
        Objects(list.iter().map(|item| (key(item), canonical(item))).collect())
    }

    #[test]
    fn what_controllers_write_is_no_difference_and_anything_else_is_named() {
        let before = json!({"kind": "Deployment", "metadata": {"name": "a", "namespace": "n",
            "resourceVersion": "1", "annotations": {"deployment.kubernetes.io/revision": "1"}},
            "spec": {"replicas": 1}, "status": {"x": 1}});
        let mut after = before.clone();
        after["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("3");
        after["metadata"]["resourceVersion"] = json!("9");
        after["status"] = json!({});
        objects(std::slice::from_ref(&before)).must_equal(&objects(&[after.clone()])).unwrap();
        after["spec"]["template"] = json!({"nodeSelector": {}});
        let error = objects(std::slice::from_ref(&before)).must_equal(&objects(&[after])).unwrap_err();
        assert!(error.to_string().contains("Deployment n/a.spec.template: null -> "), "{error}");
        assert!(objects(std::slice::from_ref(&before)).must_equal(&objects(&[])).is_err());
        assert!(objects(&[]).must_equal(&objects(&[before])).is_err());
    }
}
