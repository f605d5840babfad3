//! Changes of fields as data: reading, applying and reversing them on JSON values, and spelling them as JSON Patch.

use serde_json::{Value, json};

use crate::model::Change;

/// Why a change does not fit the object it is meant for.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// JSON pointer of the field.
    pub path: String,
    pub expected: Option<Value>,
    pub found: Option<Value>,
}

/// One token of a JSON pointer, escaped (RFC 6901 §3).
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// A JSON pointer as `kubectl explain` and people write it: `spec.ports[0].nodePort`.
pub fn readable(path: &str) -> String {
    let mut out = String::new();
    for token in path.split('/').skip(1).map(unescape) {
        if token.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{token}]"));
        } else if token.contains(['.', '/']) {
            out.push_str(&format!("[{token:?}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&token);
        }
    }
    out
}

/// The same changes the other way round, last first.
pub fn inverse(changes: &[Change]) -> Vec<Change> {
    changes.iter().rev().map(|c| Change { path: c.path.clone(), from: c.to.clone(), to: c.from.clone() }).collect()
}

/// The first field whose value is not the change's `from`.
pub fn mismatch(object: &Value, changes: &[Change]) -> Option<Mismatch> {
    changes.iter().find(|c| object.pointer(&c.path) != c.from.as_ref()).map(|c| Mismatch {
        path: c.path.clone(),
        expected: c.from.clone(),
        found: object.pointer(&c.path).cloned(),
    })
}

/// The first part of `wanted` that the object does not hold as it stands there; what else it holds does not matter.
pub fn lacking(path: &str, wanted: &Value, object: Option<&Value>) -> Option<Mismatch> {
    match (wanted, object) {
        (Value::Object(wanted), Some(Value::Object(held))) => {
            wanted.iter().find_map(|(key, value)| lacking(&format!("{path}/{}", escape(key)), value, held.get(key)))
        }
        (Value::Array(wanted), Some(Value::Array(held))) if wanted.len() == held.len() => {
            let mut both = wanted.iter().zip(held).enumerate();
            both.find_map(|(index, (wanted, held))| lacking(&format!("{path}/{index}"), wanted, Some(held)))
        }
        _ if Some(wanted) == object => None,
        _ => Some(Mismatch { path: path.to_owned(), expected: Some(wanted.clone()), found: object.cloned() }),
    }
}

/// Applies the changes; the object stays as it is where one does not fit.
///
/// # Errors
/// The first field whose value is not the expected one, or whose parent is missing.
pub fn apply(object: &mut Value, changes: &[Change]) -> Result<(), Mismatch> {
    if let Some(mismatch) = mismatch(object, changes) {
        return Err(mismatch);
    }
    let mut changed = object.clone();
    for change in changes {
        if !set(&mut changed, change) {
            return Err(Mismatch { path: change.path.clone(), expected: change.from.clone(), found: None });
        }
    }
    *object = changed;
    Ok(())
}

fn set(object: &mut Value, change: &Change) -> bool {
    let Some((parent, token)) = change.path.rsplit_once('/') else { return false };
    let token = unescape(token);
    match (object.pointer_mut(parent), &change.to) {
        (Some(Value::Object(map)), Some(value)) => {
            map.insert(token, value.clone());
            true
        }
        (Some(Value::Object(map)), None) => map.remove(&token).is_some(),
        (Some(Value::Array(list)), Some(value)) => match token.parse::<usize>().ok().and_then(|i| list.get_mut(i)) {
            Some(slot) => {
                *slot = value.clone();
                true
            }
            None => false,
        },
        _ => false,
    }
}

/// The operations of a JSON Patch (RFC 6902) that make the changes.
pub fn operations(changes: &[Change]) -> Vec<Value> {
    changes
        .iter()
        .filter_map(|c| match (&c.from, &c.to) {
            (None, Some(to)) => Some(json!({"op": "add", "path": c.path, "value": to})),
            (Some(_), Some(to)) => Some(json!({"op": "replace", "path": c.path, "value": to})),
            (Some(_), None) => Some(json!({"op": "remove", "path": c.path})),
            (None, None) => None,
        })
        .collect()
}

/// The operations that let a JSON Patch fail unless the old values still hold. Absence cannot be tested in JSON Patch;
/// the `test` on resourceVersion, which the caller adds, covers it.
pub fn tests(changes: &[Change]) -> Vec<Value> {
    changes
        .iter()
        .filter_map(|c| c.from.as_ref().map(|from| json!({"op": "test", "path": c.path, "value": from})))
        .collect()
}

/// The changes that make `to` of `from`, each as deep as it can be: what is alike is not touched.
pub fn difference(path: &str, from: &Value, to: &Value) -> Vec<Change> {
    match (from, to) {
        _ if from == to => Vec::new(),
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            keys.into_iter()
                .flat_map(|key| {
                    let path = format!("{path}/{}", escape(key));
                    match (old.get(key), new.get(key)) {
                        (Some(old), Some(new)) => difference(&path, old, new),
                        (old, new) => vec![Change { path, from: old.cloned(), to: new.cloned() }],
                    }
                })
                .collect()
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let each = old.iter().zip(new).enumerate();
            each.flat_map(|(index, (old, new))| difference(&format!("{path}/{index}"), old, new)).collect()
        }
        _ => vec![Change { path: path.to_owned(), from: Some(from.clone()), to: Some(to.clone()) }],
    }
}

/// Whether two changes touch the same field, or one a field within the other's.
pub fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn change(path: &str, from: Option<Value>, to: Option<Value>) -> Change {
        Change { path: path.to_owned(), from, to }
    }

    #[test]
    fn a_key_with_a_slash_is_one_token() {
        let path = format!("/spec/nodeSelector/{}", escape("kubernetes.io/host~name"));
        assert_eq!(path, "/spec/nodeSelector/kubernetes.io~1host~0name");
        let mut object = json!({"spec": {"nodeSelector": {}}});
        apply(&mut object, &[change(&path, None, Some(json!("cp1")))]).unwrap();
        assert_eq!(object, json!({"spec": {"nodeSelector": {"kubernetes.io/host~name": "cp1"}}}));
        assert_eq!(readable(&path), "spec.nodeSelector[\"kubernetes.io/host~name\"]");
    }

    #[test]
    fn an_element_of_a_list_is_named_by_its_index() {
        let mut object = json!({"spec": {"ports": [{"port": 9080}, {"port": 9081}]}});
        let changes = [change("/spec/ports/1/nodePort", None, Some(json!(30080)))];
        apply(&mut object, &changes).unwrap();
        assert_eq!(object.pointer("/spec/ports/1/nodePort"), Some(&json!(30080)));
        assert_eq!(readable("/spec/ports/1/nodePort"), "spec.ports[1].nodePort");
        assert!(apply(&mut object, &[change("/spec/ports/2/nodePort", None, Some(json!(1)))]).is_err());
    }

    #[test]
    fn the_old_value_is_a_condition() {
        let mut object = json!({"spec": {"type": "LoadBalancer"}});
        let found = apply(&mut object, &[change("/spec/type", Some(json!("ClusterIP")), Some(json!("NodePort")))]);
        assert_eq!(
            found,
            Err(Mismatch {
                path: "/spec/type".into(),
                expected: Some(json!("ClusterIP")),
                found: Some(json!("LoadBalancer"))
            })
        );
        assert_eq!(object, json!({"spec": {"type": "LoadBalancer"}}));
    }

    #[test]
    fn absence_is_added_and_removed_but_never_tested() {
        let changes =
            [change("/a", None, Some(json!(1))), change("/b", Some(json!(2)), None), change("/c", None, None)];
        assert_eq!(
            operations(&changes),
            [json!({"op": "add", "path": "/a", "value": 1}), json!({"op": "remove", "path": "/b"})]
        );
        assert_eq!(tests(&changes), [json!({"op": "test", "path": "/b", "value": 2})]);
    }

    #[test]
    fn fields_overlap_only_along_whole_tokens() {
        assert!(overlap("/spec/a", "/spec/a/b"));
        assert!(overlap("/spec/a", "/spec/a"));
        assert!(!overlap("/spec/a", "/spec/ab"));
    }

    #[test]
    fn what_was_asked_for_is_there_whatever_else_is() {
        let wanted = json!({"a": {"b": [1, {"c": "x"}]}});
        let held = json!({"a": {"b": [1, {"c": "x", "d": 2}], "e": 3}});
        assert_eq!(lacking("", &wanted, Some(&held)), None);
        let other = json!({"a": {"b": [1, {"c": "y"}]}});
        let path = |held: Option<&Value>| lacking("", &wanted, held).unwrap().path;
        assert_eq!(path(Some(&other)), "/a/b/1/c");
        assert_eq!(path(Some(&json!({"a": {"b": [1]}}))), "/a/b");
        assert_eq!(path(None), "");
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![(0..3i32).prop_map(|n| json!(n)), "[a-c]".prop_map(|s| json!(s))];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d/~]", inner, 0..4).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        /// The changes lead from one to the other, and their inverse back.
        #[test]
        fn a_difference_leads_there_and_back(from in tree(), to in tree()) {
            let (before, after) = (json!({"t": from}), json!({"t": to}));
            let changes = difference("", &before, &after);
            let mut object = before.clone();
            apply(&mut object, &changes).unwrap();
            prop_assert_eq!(&object, &after);
            apply(&mut object, &inverse(&changes)).unwrap();
            prop_assert_eq!(&object, &before);
        }

        /// The inverse brings back what was there, whatever keys and values.
        #[test]
        fn the_inverse_undoes(key in "[a-z~/.]{1,8}", old in proptest::option::of(0..9i32), new in 10..19i32) {
            let path = format!("/m/{}", escape(&key));
            let mut object = json!({"m": {"other": 1}});
            if let Some(old) = old {
                object["m"][&key] = json!(old);
            }
            let before = object.clone();
            let changes = [change(&path, old.map(|v| json!(v)), Some(json!(new)))];
            prop_assume!(key != "other");
            apply(&mut object, &changes).unwrap();
            prop_assert_ne!(&object, &before);
            apply(&mut object, &inverse(&changes)).unwrap();
            prop_assert_eq!(object, before);
        }
    }
}
