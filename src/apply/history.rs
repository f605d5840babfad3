//! The records of one fix, folded into what became of each step.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::journal::{Outcome, Parsed, Record};
use crate::model::{Act, Step};

/// How far a step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Announced; whether it ran is for the object to say.
    Intended,
    Done,
    Verified,
    /// Taken back within the fix.
    Reverted,
    /// Taken back later.
    Undone,
}

/// One step of a past fix.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub seq: u32,
    pub step: Step,
    pub progress: Progress,
    /// The forwarder's id, where the step started one.
    pub forward: Option<String>,
    /// uid of the object that the step created, where it is known.
    pub uid: Option<String>,
    /// Why it was not taken back at the last attempt.
    pub refused: Option<String>,
}

impl Entry {
    /// A step that was only announced yet.
    pub fn announced(seq: u32, step: Step) -> Self {
        Self { seq, step, progress: Progress::Intended, forward: None, uid: None, refused: None }
    }

    /// Whether something of it may be left to take back.
    pub fn is_left(&self) -> bool {
        match (&self.step.act, self.progress) {
            (_, Progress::Reverted | Progress::Undone) | (Act::Tell, _) => false,
            // What came after these needs no taking back: a new pod runs, the throw-away Service is gone.
            (Act::DeletePod { .. }, _) => false,
            (Act::Wake { .. }, progress) => progress == Progress::Intended,
            (
                Act::Patch { .. } | Act::Create { .. } | Act::Configure { .. } | Act::Forward { .. } | Act::Node { .. },
                _,
            ) => true,
        }
    }
}

/// One past fix.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    pub id: String,
    /// None where the first line is lost.
    pub at: Option<Timestamp>,
    pub cluster: String,
    pub host: String,
    pub targets: Vec<String>,
    /// In the order they were taken.
    pub entries: Vec<Entry>,
    pub outcome: Option<Outcome>,
    /// Lines of the journal that could not be read.
    pub torn: usize,
    pub records: Vec<Record>,
}

impl Past {
    /// Folds the records; their order within one step does not matter.
    pub fn fold(id: &str, cluster: &str, parsed: Parsed) -> Self {
        let mut past = Past {
            id: id.to_owned(),
            at: None,
            cluster: cluster.to_owned(),
            host: String::new(),
            targets: Vec::new(),
            entries: Vec::new(),
            outcome: None,
            torn: parsed.torn,
            records: parsed.records,
        };
        let mut steps: BTreeMap<u32, Entry> = BTreeMap::new();
        for record in &past.records {
            if let Record::Intent { seq, step, .. } = record {
                steps.entry(*seq).or_insert_with(|| Entry::announced(*seq, (**step).clone()));
            }
        }
        for record in &past.records {
            let mut advance = |seq: &u32, progress: Progress| {
                if let Some(entry) = steps.get_mut(seq) {
                    entry.progress = entry.progress.max(progress);
                }
            };
            match record {
                Record::Begin { at, cluster, host, targets, .. } => {
                    past.at = Some(*at);
                    past.cluster.clone_from(cluster);
                    past.host.clone_from(host);
                    past.targets.clone_from(targets);
                }
                Record::Intent { .. } => {}
                Record::Done { seq, forward, uid, .. } => {
                    advance(seq, Progress::Done);
                    if let Some(entry) = steps.get_mut(seq) {
                        entry.forward = forward.clone().or(entry.forward.take());
                        entry.uid = uid.clone().or(entry.uid.take());
                    }
                }
                Record::Verified { seq, .. } => advance(seq, Progress::Verified),
                Record::Reverted { seq, .. } => advance(seq, Progress::Reverted),
                Record::Undone { seq, .. } => advance(seq, Progress::Undone),
                Record::Refused { seq, reason, .. } => {
                    if let Some(entry) = steps.get_mut(seq) {
                        entry.refused = Some(reason.clone());
                    }
                }
                Record::End { outcome, .. } => past.outcome = Some(*outcome),
            }
        }
        past.entries = steps.into_values().collect();
        past
    }

    /// Steps of which something may be left, the last one first: the order of undoing.
    pub fn left(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev().filter(|e| e.is_left())
    }
}

/// The union of two records of the same fix: what one machine wrote, and what the cluster's mirror holds.
pub fn union(mine: Parsed, mirrored: Parsed) -> Parsed {
    let mut records = mine.records;
    for record in mirrored.records {
        if !records.contains(&record) {
            records.push(record);
        }
    }
    Parsed { records, torn: mine.torn.max(mirrored.torn) }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::model::{ActionName, Change, Code, ObjectRef, Tier, Verify};

    pub(crate) fn patch_step() -> Step {
        Step {
            name: ActionName::ServiceNodePort,
            tier: Tier::T2,
            target: "b/p".into(),
            cause: Code(1002),
            act: Act::Patch {
                object: ObjectRef::namespaced("Service", "b", "p"),
                uid: "u1".into(),
                changes: vec![
                    Change { path: "/spec/type".into(), from: Some(json!("ClusterIP")), to: Some(json!("NodePort")) },
                    Change { path: "/spec/ports/0/nodePort".into(), from: None, to: Some(json!(30080)) },
                ],
            },
            verify: Verify::Cleared,
            args: BTreeMap::new(),
            command: String::new(),
            undo: String::new(),
        }
    }

    pub(crate) fn at() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    pub(crate) fn intent(seq: u32, step: Step) -> Record {
        Record::Intent { seq, at: at(), step: Box::new(step) }
    }

    fn fold(records: Vec<Record>) -> Past {
        Past::fold("f", "c", Parsed { records, torn: 0 })
    }

    #[test]
    fn the_last_step_is_taken_back_first_and_only_what_is_left() {
        let mut told = patch_step();
        told.act = Act::Tell;
        let mut wake = patch_step();
        wake.act = Act::Wake { namespace: "b".into() };
        let past = fold(vec![
            intent(0, patch_step()),
            Record::Done { seq: 0, at: at(), forward: None, uid: None },
            Record::Verified { seq: 0, at: at() },
            intent(1, patch_step()),
            Record::Done { seq: 1, at: at(), forward: None, uid: None },
            Record::Reverted { seq: 1, at: at() },
            intent(2, told),
            intent(3, wake),
            intent(4, patch_step()),
        ]);
        let left: Vec<(u32, Progress)> = past.left().map(|e| (e.seq, e.progress)).collect();
        assert_eq!(left, [(4, Progress::Intended), (3, Progress::Intended), (0, Progress::Verified)]);
    }

    #[test]
    fn the_mirror_adds_what_was_done_elsewhere() {
        let mine = Parsed { records: vec![intent(0, patch_step())], torn: 1 };
        let mirrored = Parsed { records: vec![intent(0, patch_step()), Record::Undone { seq: 0, at: at() }], torn: 0 };
        let past = Past::fold("f", "c", union(mine, mirrored));
        assert_eq!(past.records.len(), 2);
        assert_eq!(past.left().count(), 0);
        assert_eq!(past.torn, 1);
    }

    #[test]
    fn records_survive_their_own_spelling() {
        let records =
            vec![intent(0, patch_step()), Record::Refused { seq: 0, at: at(), reason: "changed\nsince".into() }];
        assert_eq!(super::super::journal::parse(&super::super::journal::lines(&records)).records, records);
    }
}
