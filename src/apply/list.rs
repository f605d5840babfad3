//! Past fixes, made here or elsewhere.

use jiff::Timestamp;
use serde::Serialize;

use super::history::{Past, Progress};
use super::journal;
use super::kube::Writer;
use super::undo::known;
use crate::model::{ActionName, Code};
use crate::observe::client::Cluster;

/// What is left of a fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Its changes are in place.
    Active,
    /// All of it was taken back by `--undo`, or by itself.
    Undone,
    /// It was cut off in the middle, or a step could not be taken back.
    Failed,
}

/// Where a fix was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "where")]
pub enum Where {
    Here,
    /// On another machine.
    Elsewhere {
        host: String,
    },
    /// For a cluster that this is not (it was made anew, or the kubeconfig leads elsewhere).
    OtherCluster {
        cluster: String,
    },
}

/// One past fix, as `fix --list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub id: String,
    pub at: Option<Timestamp>,
    pub targets: Vec<String>,
    pub causes: Vec<Code>,
    pub steps: Vec<ActionName>,
    pub state: State,
    #[serde(flatten)]
    pub place: Where,
    /// Lines of its journal that could not be read.
    pub torn: usize,
}

/// Past fixes, newest first. `namespaces` are those of the targets.
pub async fn list(cluster: &Cluster, namespaces: &[String]) -> Vec<Listed> {
    let writer = Writer::new(cluster.client.clone(), cluster.connection.request_timeout);
    let state = crate::statedir::own();
    let mut all: Vec<Listed> = known(&writer, state.as_deref(), &cluster.uid, namespaces)
        .await
        .into_iter()
        .map(|u| {
            let place = if u.here { Where::Here } else { Where::Elsewhere { host: u.past.host.clone() } };
            listed(u.past, place)
        })
        .collect();
    for found in state.as_deref().map(journal::all).unwrap_or_default() {
        let past = Past::fold(&found.fix, &found.cluster, found.parsed);
        if past.cluster != cluster.uid {
            let place = Where::OtherCluster { cluster: past.cluster.clone() };
            all.push(listed(past, place));
        }
    }
    all.sort_by(|a, b| b.id.cmp(&a.id));
    all
}

fn listed(past: Past, place: Where) -> Listed {
    let mut causes: Vec<Code> = past.entries.iter().map(|e| e.step.cause).collect();
    causes.dedup();
    let refused = past.left().any(|e| e.refused.is_some());
    let state = if past.left().next().is_none() {
        State::Undone
    } else if past.outcome.is_none() || refused || past.left().any(|e| e.progress == Progress::Intended) {
        State::Failed
    } else {
        State::Active
    };
    Listed {
        state,
        at: past.at,
        targets: past.targets,
        causes,
        steps: past.entries.iter().map(|e| e.step.name).collect(),
        place,
        torn: past.torn,
        id: past.id,
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::{at, intent, patch_step};
    use super::super::journal::{Outcome, Parsed, Record};
    use super::*;

    fn state(more: &[Record]) -> State {
        let mut records = vec![intent(0, patch_step())];
        records.extend_from_slice(more);
        listed(Past::fold("f", "c", Parsed { records, torn: 0 }), Where::Here).state
    }

    #[test]
    fn a_fix_is_active_until_all_of_it_is_taken_back() {
        let done = Record::Done { seq: 0, at: at(), forward: None, uid: None };
        let end = Record::End { at: at(), outcome: Outcome::Restored };
        assert_eq!(state(&[]), State::Failed);
        assert_eq!(state(&[done.clone(), end.clone()]), State::Active);
        let refused = Record::Refused { seq: 0, at: at(), reason: "changed".into() };
        assert_eq!(state(&[done.clone(), end.clone(), refused]), State::Failed);
        assert_eq!(state(&[done, end, Record::Undone { seq: 0, at: at() }]), State::Undone);
    }
}
