//! What was done, written down before it is done: append-only JSON lines, one file a fix.
//!
//! `STATE/journal/CLUSTER/FIX.jsonl`, each line forced to the disk before the act it announces. A reader drops a last
//! line that was cut off: its act never ran.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::model::Step;

/// How a fix ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The page answers at its address.
    Restored,
    /// It answers from this machine only.
    LocalOnly,
    /// It does not answer.
    Failed,
    Interrupted,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "record")]
pub enum Record {
    Begin {
        fix: String,
        at: Timestamp,
        /// uid of namespace kube-system.
        cluster: String,
        /// The machine that made it.
        host: String,
        targets: Vec<String>,
    },
    /// What is about to be done.
    Intent {
        seq: u32,
        at: Timestamp,
        step: Box<Step>,
    },
    Done {
        seq: u32,
        at: Timestamp,
        /// The forwarder's own id, where the step started one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forward: Option<String>,
        /// uid of the object that the step created.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
    },
    Verified {
        seq: u32,
        at: Timestamp,
    },
    /// Taken back within the fix, because it did not help.
    Reverted {
        seq: u32,
        at: Timestamp,
    },
    /// Taken back by `fix --undo`.
    Undone {
        seq: u32,
        at: Timestamp,
    },
    /// Not taken back, and why (English).
    Refused {
        seq: u32,
        at: Timestamp,
        reason: String,
    },
    End {
        at: Timestamp,
        outcome: Outcome,
    },
}

/// What a journal's text holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    pub records: Vec<Record>,
    /// Lines that could not be read: cut off at the end, or damaged.
    pub torn: usize,
}

/// Reads as much as can be read.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(record) => parsed.records.push(record),
            Err(_) => parsed.torn += 1,
        }
    }
    parsed
}

/// The lines of these records.
pub fn lines(records: &[Record]) -> String {
    records.iter().filter_map(|r| serde_json::to_string(r).ok()).map(|line| line + "\n").collect()
}

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Journal {
    /// Opens the journal of one fix below the state folder, new or with what it holds already.
    ///
    /// # Errors
    /// The folder or file cannot be made, read or written.
    pub fn open(state: &Path, cluster: &str, fix: &str) -> Result<Self, Error> {
        let dir = folder(state).join(safe(cluster));
        let path = dir.join(format!("{}.jsonl", safe(fix)));
        let open = || -> std::io::Result<(File, String)> {
            std::fs::create_dir_all(&dir)?;
            let text = match std::fs::read(&path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(e) => return Err(e),
            };
            let mut file = options().open(&path)?;
            if !text.is_empty() && !text.ends_with('\n') {
                // A line that was cut off must not swallow the next one.
                file.write_all(b"\n")?;
            }
            sync_folder(&dir)?;
            Ok((file, text))
        };
        let (file, text) = open().map_err(|source| Error::Journal { path: path.clone(), source })?;
        Ok(Self { path, file, records: parse(&text).records })
    }

    /// Writes one record and waits until it is on the disk.
    ///
    /// # Errors
    /// It could not be written: the act it announces must not run.
    pub fn append(&mut self, record: Record) -> Result<(), Error> {
        let line = lines(std::slice::from_ref(&record));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| Error::Journal { path: self.path.clone(), source })?;
        self.records.push(record);
        Ok(())
    }

    /// All records so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

#[cfg(unix)]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    // Old values of other people's objects: for the owner's eyes only.
    options.append(true).create(true).mode(0o600);
    options
}

#[cfg(not(unix))]
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options
}

/// A new file survives a crash only when its folder is on the disk too.
fn sync_folder(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Where the journals lie in a state folder.
pub fn folder(state: &Path) -> PathBuf {
    state.join("journal")
}

/// A name that is one path segment.
fn safe(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if clean.is_empty() { "unknown".to_owned() } else { clean }
}

/// One journal file found on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub cluster: String,
    pub fix: String,
    pub parsed: Parsed,
}

/// All journals of a state folder that hold anything; what cannot be read is not there.
pub fn all(state: &Path) -> Vec<Found> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
    };
    let mut found = Vec::new();
    for cluster in entries(&folder(state)) {
        for path in entries(&cluster).into_iter().filter(|p| p.extension().is_some_and(|e| e == "jsonl")) {
            let (Ok(bytes), Some(fix), Some(cluster)) = (std::fs::read(&path), path.file_stem(), cluster.file_name())
            else {
                continue;
            };
            let parsed = parse(&String::from_utf8_lossy(&bytes));
            // Opened by a fix that was refused before its first step.
            if parsed == Parsed::default() {
                continue;
            }
            found.push(Found {
                cluster: cluster.to_string_lossy().into_owned(),
                fix: fix.to_string_lossy().into_owned(),
                parsed,
            });
        }
    }
    found.sort_by(|a, b| a.fix.cmp(&b.fix));
    found
}

/// A new fix id: short enough to type, ordered by time (seconds since 1970 and three random characters, base 32).
pub fn new_id(now: Timestamp) -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    format!("{}{}", base32(seconds, 7), base32(random, 3))
}

/// Crockford's alphabet: no letter that reads like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn base32(number: u64, digits: u32) -> String {
    (0..digits).rev().map(|i| char::from(ALPHABET[(number >> (5 * i) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn done(seq: u32) -> Record {
        Record::Done { seq, at: at(1), forward: None, uid: None }
    }

    #[test]
    fn ids_are_short_and_ordered_by_time() {
        let (a, b) = (new_id(at(1_800_000_000)), new_id(at(1_800_000_001)));
        assert_eq!(a.len(), 10);
        assert!(a < b && a[..7] < b[..7], "{a} {b}");
        assert_ne!(new_id(at(1)), new_id(at(1)));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "uid-1", "fix1").unwrap();
        journal.append(done(0)).unwrap();
        journal.append(Record::End { at: at(2), outcome: Outcome::LocalOnly }).unwrap();
        let found = all(dir.path());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].cluster.as_str(), found[0].fix.as_str()), ("uid-1", "fix1"));
        assert_eq!(found[0].parsed, Parsed { records: journal.records().to_vec(), torn: 0 });
    }

    #[test]
    fn a_line_cut_off_is_dropped_and_said_and_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        Journal::open(dir.path(), "c", "f").unwrap().append(done(0)).unwrap();
        let path = folder(dir.path()).join("c/f.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() - 1 {
            let mut text = whole.clone();
            text.extend_from_slice(&whole[..cut]);
            std::fs::write(&path, &text).unwrap();
            let mut journal = Journal::open(dir.path(), "c", "f").unwrap();
            assert_eq!(journal.records(), [done(0)]);
            journal.append(done(1)).unwrap();
            let parsed = all(dir.path())[0].parsed.clone();
            assert_eq!((parsed.records, parsed.torn), (vec![done(0), done(1)], 1), "cut at {cut}");
        }
    }

    #[test]
    fn a_name_never_leaves_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        Journal::open(dir.path(), "../..", "").unwrap().append(done(0)).unwrap();
        assert_eq!(all(dir.path())[0].cluster, "_____");
        assert_eq!(all(dir.path())[0].fix, "unknown");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("journal"), "").unwrap();
        assert!(matches!(Journal::open(dir.path(), "c", "f"), Err(Error::Journal { .. })));
    }
}
