//! A Snapshot as a file: for a look without the cluster, and for a bug report. Nothing secret is in it.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use serde::Deserialize;

use super::large;
use crate::model::Snapshot;
use crate::model::snapshot::SNAPSHOT_VERSION;

/// The most bytes that are read: three times what the largest cluster's Snapshot has.
pub const MOST: u64 = 512 << 20;

/// One with more pods than this is not written for the eye.
const READABLE: usize = 1_000;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path}: more than {} MiB", MOST >> 20)]
    TooLarge { path: String },
    /// It ends in the middle.
    #[error("{path}: cut off at line {line}")]
    CutOff { path: String, line: u64 },
    /// It has the shape of something else.
    #[error("{path}: no snapshot")]
    Another { path: String },
    /// A value that cannot stand where it stands.
    #[error("{path}:{line}:{column}: {message}")]
    Value { path: String, line: u64, column: u64, message: String },
    #[error("{path}: shape {found}, but this program reads {SNAPSHOT_VERSION}")]
    Version { path: String, found: u64 },
}

/// Writes a Snapshot as JSON, as it is: see [`super::redact`].
///
/// # Errors
/// Where the file cannot be written.
pub fn save(snapshot: &Snapshot, path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    let written = if snapshot.objects.pods.len() > READABLE {
        serde_json::to_writer(&mut out, snapshot)
    } else {
        serde_json::to_writer_pretty(&mut out, snapshot)
    };
    written.map_err(|e| io(e.into()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(io)
}

/// Reads a Snapshot that `save` wrote; YAML is read too.
///
/// # Errors
/// Where the file is not there, too large, is no Snapshot, or one of another version.
pub fn read(path: &Path) -> Result<Snapshot, Error> {
    let name = path.display().to_string();
    let bytes = bytes(path, &name)?;
    // A newer version may have another shape: what it says of itself comes first.
    let snapshot = parse(&bytes, &name).map_err(|error| match version(&bytes) {
        Some(found) if found != u64::from(SNAPSHOT_VERSION) => Error::Version { path: name.clone(), found },
        Some(_) => error,
        None if matches!(error, Error::CutOff { .. }) => error,
        None => Error::Another { path: name.clone() },
    })?;
    if snapshot.version != SNAPSHOT_VERSION {
        return Err(Error::Version { path: name, found: snapshot.version.into() });
    }
    Ok(snapshot)
}

/// The whole content, as long as it is not more than anybody would have written. Pipes and devices have no end that
/// could be asked for, so that it is counted.
fn bytes(path: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: name.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(io(ErrorKind::IsADirectory.into()));
    }
    let too_large = || Error::TooLarge { path: name.to_owned() };
    if metadata.len() > MOST {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MOST { Err(too_large()) } else { Ok(bytes) }
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
}

fn parse(bytes: &[u8], name: &str) -> Result<Snapshot, Error> {
    let path = || name.to_owned();
    if is_json(bytes) {
        if bytes.len() >= large::LARGE
            && let Some(snapshot) = large::read(bytes)
        {
            return Ok(snapshot);
        }
        return serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line() as u64, error.column() as u64);
            match error.classify() {
                serde_json::error::Category::Eof => Error::CutOff { path: path(), line },
                _ => {
                    let said = error.to_string();
                    let place = format!(" at line {line} column {column}");
                    Error::Value { path: path(), line, column, message: said.replace(&place, "") }
                }
            }
        });
    }
    let text = str::from_utf8(bytes).map_err(|_| Error::Another { path: path() })?;
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        // The first line is the sentence, what follows shows the file.
        let said = error.to_string();
        let first = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let message = first.trim_start_matches(&format!("line {line} column {column}: ")).to_owned();
        Error::Value { path: path(), line, column, message }
    })
}

/// The version that the file says it has, whatever else is in it; none where it is no Snapshot of any version.
fn version(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Head {
        version: serde_json::Value,
        #[serde(rename = "takenAt")]
        _taken_at: serde::de::IgnoredAny,
        #[serde(rename = "targets")]
        _targets: serde::de::IgnoredAny,
    }
    let head: Head = match is_json(bytes) {
        true => serde_json::from_slice(bytes).ok()?,
        false => serde_saphyr::from_str(str::from_utf8(bytes).ok()?).ok()?,
    };
    head.version.as_u64()
}
