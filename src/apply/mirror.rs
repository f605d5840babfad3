//! The journal's copy in the cluster: a fix made on a laptop is known on the node.

use kube::api::ListParams;
use serde_json::{Map, Value, json};

use super::Error;
use super::journal::{Record, lines, parse};
use super::kube::{MANAGED_BY, Writer};
use crate::model::ObjectRef;

/// Name of the ConfigMap, in the namespace of the target.
pub const NAME: &str = "bookaccess-journal";

/// So many fixes are kept; older ones make room.
const KEPT: usize = 20;

/// A ConfigMap holds 1 MiB (Kubernetes documentation); this leaves room for its metadata.
const LIMIT: usize = 900 * 1024;

fn object(namespace: &str) -> ObjectRef {
    ObjectRef::namespaced("ConfigMap", namespace, NAME)
}

/// Writes all records of one fix under its id.
pub async fn write(writer: &Writer, namespace: &str, fix: &str, records: &[Record]) -> Result<(), Error> {
    let object = object(namespace);
    let text = lines(records);
    let Some(current) = writer.read(&object).await? else {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "data": {fix: text},
        });
        if writer.create(&object, body, false).await? {
            return Ok(());
        }
        return writer.merge(&object, &json!({"data": {fix: text}})).await;
    };
    let nothing = Map::new();
    let data = current.pointer("/data").and_then(Value::as_object).unwrap_or(&nothing);
    writer.merge(&object, &json!({"data": room(data, fix, text)})).await
}

/// The merge patch that writes this fix and takes away as many of the oldest as needed (ids are ordered by time).
fn room(data: &Map<String, Value>, fix: &str, text: String) -> Map<String, Value> {
    let mut others: Vec<(&String, usize)> =
        data.iter().filter(|(k, _)| *k != fix).map(|(k, v)| (k, v.as_str().map_or(0, str::len))).collect();
    others.sort();
    let mut size = text.len() + others.iter().map(|(_, len)| len).sum::<usize>();
    let mut patch = Map::new();
    let mut count = others.len() + 1;
    for (key, len) in others {
        if count <= KEPT && size <= LIMIT {
            break;
        }
        patch.insert(key.clone(), Value::Null);
        count -= 1;
        size -= len;
    }
    patch.insert(fix.to_owned(), Value::String(text));
    patch
}

/// The fixes mirrored in one namespace, or in all that may be read.
pub async fn read(writer: &Writer, namespaces: &[String]) -> Vec<(String, super::journal::Parsed)> {
    let by = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let found = match writer.list("ConfigMap", None, &by).await {
        Ok(found) => found.into_iter().filter(|c| super::kube::text(c, "/metadata/name") == NAME).collect(),
        // Without the right to list all namespaces those of the targets are asked one by one.
        Err(_) => {
            let mut found = Vec::new();
            for namespace in namespaces {
                found.extend(writer.read(&object(namespace)).await.ok().flatten());
            }
            found
        }
    };
    let mut fixes = Vec::new();
    for map in &found {
        for (fix, text) in map.pointer("/data").and_then(Value::as_object).into_iter().flatten() {
            fixes.push((fix.clone(), parse(text.as_str().unwrap_or_default())));
        }
    }
    fixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let data: Map<String, Value> = (10..30).map(|i| (format!("fix{i}"), Value::from("x"))).collect();
        let patch = room(&data, "fix30", "new".to_owned());
        assert_eq!(patch.get("fix10"), Some(&Value::Null));
        assert_eq!(patch.len(), 2);
        assert_eq!(room(&data, "fix12", "again".to_owned()).len(), 1);
        let big = Map::from_iter([("fix1".to_owned(), Value::from("x".repeat(LIMIT)))]);
        assert_eq!(room(&big, "fix2", "y".to_owned()).get("fix1"), Some(&Value::Null));
    }
}
