//! A file that somebody edited: whatever stands in it, it is judged or refused, and nothing falls over.

use bookaccess::check;
use bookaccess::facts::Facts;
use bookaccess::model::Snapshot;
use bookaccess::plan::{self, Policy};
use bookaccess::render;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::fixtures;

/// The leaves of a tree, in its order.
fn leaves<'v>(tree: &'v mut Value, found: &mut Vec<&'v mut Value>) {
    match tree {
        Value::Array(list) => list.iter_mut().for_each(|v| leaves(v, found)),
        Value::Object(map) => map.values_mut().for_each(|v| leaves(v, found)),
        leaf => found.push(leaf),
    }
}

/// What no program would have written.
fn absurd() -> impl Strategy<Value = Value> {
    let long = "x".repeat(10_000);
    prop_oneof![
        Just(json!(null)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(65_536)),
        Just(json!(i32::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(1e300)),
        Just(json!(true)),
        Just(json!("")),
        Just(json!("/")),
        Just(json!("10.0.0.0/33")),
        Just(json!("9999-12-31T23:59:59Z")),
        Just(json!("-009999-01-01T00:00:00Z")),
        Just(json!("가\u{0}\u{202e}🙂")),
        Just(json!(long)),
        Just(json!([])),
        Just(json!({})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_it_nothing_panics(edits in proptest::collection::vec((any::<Index>(), absurd()), 1..4)) {
        for (_, snapshot) in fixtures().iter().step_by(3) {
            let mut tree = serde_json::to_value(snapshot).unwrap();
            let mut places = Vec::new();
            leaves(&mut tree, &mut places);
            for (at, value) in &edits {
                let at = at.index(places.len());
                *places[at] = value.clone();
            }
            tree["unknown"] = json!({"field": [1, 2]});
            let Ok(snapshot) = serde_json::from_value::<Snapshot>(tree) else { continue };
            let snapshot = bookaccess::observe::redact::redact(snapshot);
            let facts = Facts::derive(&snapshot);
            let report = check::run(&facts);
            let plan = plan::plan(&facts, &report.findings, &Policy { fallback: true, ..Policy::default() });
            let view = render::Diagnosis::of(&facts, &report, plan);
            let style = render::Style { locale: bookaccess::i18n::Locale::Ko, color: false, wide: true };
            render::diagnosis::write(&style, &view, &mut Vec::new()).unwrap();
        }
    }
}
