//! Reads a large Snapshot file on two threads: its pods, which are most of it, beside everything else, and then together.

use std::ops::Range;
use std::sync::Mutex;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::model::Snapshot;
use crate::model::pod::Pod;

/// Below this many bytes a second thread gains nothing.
pub const LARGE: usize = 16 << 20;

/// So many pods are taken at a time.
const PORTION: usize = 1024;

/// The long lists, as they stand in the text.
#[derive(Deserialize)]
struct Text<'t> {
    #[serde(borrow)]
    objects: Lists<'t>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lists<'t> {
    /// One by one, so that they can be shared out.
    #[serde(borrow)]
    pods: Vec<&'t RawValue>,
    #[serde(borrow)]
    services: &'t RawValue,
    #[serde(borrow)]
    endpoint_slices: &'t RawValue,
    #[serde(borrow)]
    deployments: &'t RawValue,
    #[serde(borrow)]
    nodes: &'t RawValue,
}

/// The Snapshot; none where something is wrong with it: who reads it from its start to its end says what and where.
pub fn read(bytes: &[u8]) -> Option<Snapshot> {
    let Text { objects: lists } = serde_json::from_slice(bytes).ok()?;
    let texts = lists.pods;
    let mut pods = vec![Pod::default(); texts.len()];
    let portions = Mutex::new(pods.chunks_mut(PORTION).zip(texts.chunks(PORTION)));
    let mut snapshot = std::thread::scope(|scope| {
        let beside = scope.spawn(|| fill(&portions));
        let others = [lists.services, lists.endpoint_slices, lists.deployments, lists.nodes];
        let mut cut: Vec<_> = others.into_iter().map(|list| inside(place(bytes, list))).collect();
        if let [first, .., last] = texts.as_slice() {
            cut.push(place(bytes, first).start..place(bytes, last).end);
        }
        let mut snapshot: Snapshot = serde_json::from_slice(&without(bytes, cut)).ok()?;
        let objects = &mut snapshot.objects;
        objects.services = list(lists.services)?;
        objects.endpoint_slices = list(lists.endpoint_slices)?;
        objects.deployments = list(lists.deployments)?;
        objects.nodes = list(lists.nodes)?;
        fill(&portions)?;
        beside.join().ok()??;
        Some(snapshot)
    })?;
    snapshot.objects.pods = pods;
    Some(snapshot)
}

/// Reads pods portion by portion into their places, as long as there are any.
fn fill<'p>(portions: &Mutex<impl Iterator<Item = (&'p mut [Pod], &'p [&'p RawValue])>>) -> Option<()> {
    loop {
        let Some((places, texts)) = portions.lock().ok()?.next() else { return Some(()) };
        for (place, text) in places.iter_mut().zip(texts) {
            *place = serde_json::from_str(text.get()).ok()?;
        }
    }
}

fn list<T: DeserializeOwned>(text: &RawValue) -> Option<Vec<T>> {
    serde_json::from_str(text.get()).ok()
}

/// Where a part of the text lies in it.
fn place(bytes: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - bytes.as_ptr().addr();
    start..start + part.get().len()
}

/// What lies between a list's brackets.
fn inside(list: Range<usize>) -> Range<usize> {
    list.start + 1..list.end - 1
}

/// The text without these parts.
fn without(bytes: &[u8], mut parts: Vec<Range<usize>>) -> Vec<u8> {
    parts.sort_by_key(|part| part.start);
    let mut rest = Vec::new();
    let mut from = 0;
    for part in parts {
        rest.extend_from_slice(&bytes[from..part.start]);
        from = part.end;
    }
    rest.extend_from_slice(&bytes[from..]);
    rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(pods: &str) -> String {
        format!(
            r#"{{"version": 1, "takenAt": "2026-11-23T12:00:00Z", "stand": {{"root": false, "server": "a:6443"}}, "targets": [],
            "objects": {{"services": [{{"metadata": {{"name": "s"}}}}], "endpointSlices": [], "pods": {pods},
            "deployments": [], "nodes": [{{"metadata": {{"name": "n"}}}}], "namespaces": [{{"metadata": {{"name": "a"}}}}]}},
            "gaps": []}}"#
        )
    }

    #[test]
    fn it_reads_what_one_thread_reads() {
        let text = file(r#"[{"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}}]"#);
        let whole: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(whole.objects.pods.len() + whole.objects.services.len() + whole.objects.nodes.len(), 3);
        assert_eq!(read(text.as_bytes()).unwrap(), whole);
    }

    #[test]
    fn what_is_wrong_is_left_to_one_thread() {
        for pods in ["[1]", "null", "[", r#"[{"spec": {"nodeName": 3}}]"#] {
            assert_eq!(read(file(pods).as_bytes()), None, "{pods}");
        }
        assert_eq!(read(br#"{"version": 1}"#), None);
    }
}
