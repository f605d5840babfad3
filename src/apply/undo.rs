//! Takes a past fix back: the recorded old values, last step first, each only where nobody changed the field since.

use std::path::Path;

use jiff::Timestamp;

use super::executor::{Settings, holder};
use super::history::{Past, union};
use super::journal::{self, Journal, Parsed, Record};
use super::kube::Writer;
use super::take_back::take_back;
use super::{Error, lease, mirror};
use crate::model::{Act, Step};
use crate::observe::client::Cluster;

/// A fix of which something may be left to take back.
#[derive(Debug, Clone, PartialEq)]
pub struct Undoable {
    pub past: Past,
    /// Its journal lies on this machine.
    pub here: bool,
}

impl Undoable {
    /// The steps that will be taken back, in that order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.past.left().map(|e| &e.step)
    }
}

/// What came of an undo.
#[derive(Debug, Default)]
pub struct Undone {
    /// Steps taken back.
    pub undone: Vec<Step>,
    /// Steps left as they are, and why.
    pub refused: Vec<(Step, Error)>,
    /// Journal lines that could not be read.
    pub torn: usize,
}

/// All fixes of this cluster that this machine or the cluster's mirrors know, oldest first.
pub(super) async fn known(
    writer: &Writer,
    state: Option<&Path>,
    cluster: &str,
    namespaces: &[String],
) -> Vec<Undoable> {
    let mut found: std::collections::BTreeMap<String, (Parsed, bool)> = Default::default();
    for local in state.map(journal::all).unwrap_or_default() {
        if local.cluster == cluster {
            found.insert(local.fix, (local.parsed, true));
        }
    }
    for (fix, mirrored) in mirror::read(writer, namespaces).await {
        match found.remove(&fix) {
            Some((mine, here)) => found.insert(fix, (union(mine, mirrored), here)),
            None => found.insert(fix, (mirrored, false)),
        };
    }
    found
        .into_iter()
        .map(|(fix, (parsed, here))| Undoable { past: Past::fold(&fix, cluster, parsed), here })
        .filter(|u| u.past.cluster == cluster)
        .collect()
}

/// The fix of this id, or the newest of which something is left. `namespaces` are those of the targets.
///
/// # Errors
/// Nothing is left to undo, or the id is not known.
pub async fn find(cluster: &Cluster, namespaces: &[String], id: Option<&str>) -> Result<Undoable, Error> {
    let writer = Writer::new(cluster.client.clone(), cluster.connection.request_timeout);
    let state = crate::statedir::own();
    choose(known(&writer, state.as_deref(), &cluster.uid, namespaces).await, state.as_deref(), id)
}

pub(super) fn choose(known: Vec<Undoable>, state: Option<&Path>, id: Option<&str>) -> Result<Undoable, Error> {
    let found = match id {
        Some(id) => match known.iter().find(|u| u.past.id == id) {
            Some(found) => Some(found),
            None => {
                let here = state.map(journal::all).unwrap_or_default();
                if let Some(other) = here.into_iter().find(|local| local.fix == id) {
                    return Err(Error::OtherCluster { id: id.to_owned(), cluster: other.cluster });
                }
                return Err(Error::UnknownFix {
                    id: id.to_owned(),
                    known: known.iter().map(|u| u.past.id.clone()).collect(),
                });
            }
        },
        None => known.iter().rev().find(|u| u.past.left().next().is_some()),
    };
    found.filter(|u| u.past.left().next().is_some()).cloned().ok_or(Error::NothingToUndo)
}

/// Takes the fix back. A step that cannot be taken back is refused and said; the others are taken back all the same.
///
/// # Errors
/// Another fix is under way, the journal cannot be written, or it was interrupted between two steps.
pub async fn undo(cluster: &Cluster, settings: &Settings, fix: &Undoable) -> Result<Undone, Error> {
    let writer = Writer::new(cluster.client.clone(), cluster.connection.request_timeout);
    take_all_back(&writer, settings, fix).await
}

pub(super) async fn take_all_back(writer: &Writer, settings: &Settings, fix: &Undoable) -> Result<Undone, Error> {
    let past = &fix.past;
    // A fix made elsewhere gets a journal here too, so that this machine knows what it undid.
    let mut journal = Journal::open(&settings.state, &settings.cluster, &past.id)?;
    for record in past.records.iter().filter(|r| !journal.records().contains(r)).cloned().collect::<Vec<_>>() {
        journal.append(record)?;
    }
    let mut namespaces: Vec<String> = past
        .left()
        .filter(|e| !matches!(e.step.act, Act::Forward { .. }))
        .map(|e| e.step.target.split_once('/').map_or(e.step.target.as_str(), |(n, _)| n).to_owned())
        .collect();
    namespaces.sort();
    namespaces.dedup();
    let mut leases = Vec::new();
    for namespace in &namespaces {
        match lease::acquire(writer, namespace, &holder(&past.id), &settings.cancel).await {
            Ok(lease) => leases.push(lease),
            Err(Error::Forbidden { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut report = Undone { torn: past.torn, ..Undone::default() };
    let mut interrupted = false;
    for entry in past.left() {
        if settings.cancel.is_cancelled() {
            interrupted = true;
            break;
        }
        let (seq, step) = (entry.seq, entry.step.clone());
        let taken = if matches!(step.act, Act::Forward { .. } | Act::Node { .. }) && !fix.here {
            Err(Error::Elsewhere { fix: past.id.clone(), host: past.host.clone() })
        } else {
            take_back(writer, &past.id, entry, settings.forwarder.as_ref()).await
        };
        let at = Timestamp::now();
        match taken {
            Ok(()) => {
                journal.append(Record::Undone { seq, at })?;
                report.undone.push(step);
            }
            Err(error) => {
                journal.append(Record::Refused { seq, at, reason: error.to_string() })?;
                report.refused.push((step, error));
            }
        }
    }
    for namespace in &namespaces {
        if let Err(error) = mirror::write(writer, namespace, &past.id, journal.records()).await {
            tracing::warn!(%error, namespace, "the journal is not mirrored");
        }
    }
    for lease in leases {
        if let Err(error) = lease.release().await {
            tracing::warn!(%error, "the lease was not released");
        }
    }
    if interrupted { Err(Error::Interrupted) } else { Ok(report) }
}
