//! The log of a background forward: structured, English, one JSON object a line, bounded in size.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log file is put aside at this size; one old file is kept.
const ROTATE_AT: u64 = 1024 * 1024;

/// One line, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub at: Option<Timestamp>,
    /// `INFO`, `WARN`, `ERROR`.
    pub level: String,
    /// What happened, as a stable word: `endpoints`, `position`, `dial-failed`, … ; "" where the line has none.
    pub event: String,
    pub fields: Map<String, Value>,
    /// The line as it is in the file.
    pub raw: String,
}

/// Where the previous log is put.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// All lines that are there, oldest first.
///
/// # Errors
/// Of the file; a missing older one is none.
pub fn entries(path: &Path) -> std::io::Result<Vec<Entry>> {
    Ok(Follower::open(path)?.0)
}

/// Reads on where the last look ended, over the change to a new file.
pub struct Follower {
    path: PathBuf,
    /// Bytes of the file that were read.
    at: u64,
}

impl Follower {
    /// All lines that are there, oldest first, and who tells what comes after them.
    ///
    /// # Errors
    /// Of the file; a missing older one is none.
    pub fn open(path: &Path) -> std::io::Result<(Vec<Entry>, Self)> {
        let old = std::fs::read_to_string(rotated(path)).unwrap_or_default();
        let mut all: Vec<Entry> = lines(&old).map(parse).collect();
        let mut follower = Self { path: path.to_owned(), at: 0 };
        all.extend(follower.news()?);
        Ok((all, follower))
    }

    /// What came since the last look. A line that is just being written is left for the next one.
    ///
    /// # Errors
    /// Of the file: that of a stopped forward is gone.
    pub fn news(&mut self) -> std::io::Result<Vec<Entry>> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.at {
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.at))?;
        let text = std::io::read_to_string(file)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        Ok(lines(&text[..whole]).map(parse).collect())
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|l| !l.trim().is_empty())
}

/// One line. What is no JSON, such as a panic's text, is an entry without fields.
pub fn parse(line: &str) -> Entry {
    let mut fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    Entry {
        at: take("timestamp").parse().ok(),
        level: take("level"),
        event: take("event"),
        fields,
        raw: line.to_owned(),
    }
}

/// Sends this process's logs to a file.
///
/// # Errors
/// Where the file cannot be opened.
pub fn init(path: &Path) -> std::io::Result<()> {
    let writer = Rotating(Arc::new(Mutex::new(open(path)?)));
    let filter = EnvFilter::try_from_env("BOOKACCESS_LOG").unwrap_or_else(|_| EnvFilter::new("bookaccess=info"));
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(writer);
    // Only a second call could fail; then the first file goes on.
    let _ = subscriber.try_init();
    Ok(())
}

/// A log file open for appending, 0600.
///
/// # Errors
/// Of the file.
pub fn open(path: &Path) -> std::io::Result<Log> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok(Log { path: path.to_owned(), file, size, limit: ROTATE_AT })
}

/// The open file.
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl Log {
    /// For a process's stderr, which is not counted against the size.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            std::fs::rename(&self.path, rotated(&self.path))?;
            self.file = open(&self.path)?.file;
            self.size = 0;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

struct Rotating(Arc<Mutex<Log>>);

struct Shared(Arc<Mutex<Log>>);

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = Shared;

    fn make_writer(&'a self) -> Shared {
        Shared(self.0.clone())
    }
}

impl Write for Shared {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_both_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut log = open(&path).unwrap();
        log.limit = 150;
        for number in 0..3 {
            let line = format!(
                "{{\"timestamp\":\"2026-01-01T00:00:0{number}Z\",\"level\":\"INFO\",\"event\":\"e{number}\",\"n\":{number}}}\n"
            );
            log.write_all(line.as_bytes()).unwrap();
        }
        assert!(rotated(&path).exists());
        let events: Vec<String> = entries(&path).unwrap().into_iter().map(|e| e.event).collect();
        assert_eq!(events, ["e0", "e1", "e2"]);
        let last = entries(&path).unwrap().pop().unwrap();
        assert_eq!((last.level.as_str(), last.fields["n"].as_i64()), ("INFO", Some(2)));
        assert!(last.at.is_some());
    }

    #[test]
    fn a_line_that_is_no_json_is_kept() {
        let entry = parse("thread panicked");
        assert_eq!((entry.event.as_str(), entry.raw.as_str()), ("", "thread panicked"));
    }
}
