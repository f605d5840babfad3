//! The forwards there are: their files, and which of them are alive.
//!
//! A forward lives while its process holds the lock on `ID.lock`; the kernel frees it however the process ends. The
//! lock also names the pid, so that no other process is ever taken for it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::protocol::{Record, Status};
use crate::statedir;

/// A successor that serves has taken the lock within this time.
#[cfg(unix)]
const SUCCESSION: std::time::Duration = std::time::Duration::from_millis(100);

/// What cannot be done with the files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no state folder: no home")]
    NoFolder,
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
    #[error("no forward {id}")]
    NoSuch { id: String },
}

/// The files of one forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub(super) folder: PathBuf,
    id: String,
}

/// The living process of a forward.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// As the kernel names it; none where it lives in another pid namespace.
    pub pid: Option<rustix::process::Pid>,
}

/// The own folder for forwards, made where it is missing.
///
/// # Errors
/// Where there is none or it cannot be written.
pub fn folder() -> Result<PathBuf, Error> {
    let folder = statedir::own().ok_or(Error::NoFolder)?.join("forwards");
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    // Others may read the statuses of root's forwards; what is secret has a mode of its own.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, if statedir::is_root() { 0o755 } else { 0o700 });
    builder.create(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    Ok(folder)
}

impl Files {
    /// Of one id in the own folder.
    ///
    /// # Errors
    /// See [`folder`].
    pub fn own(id: &str) -> Result<Self, Error> {
        Ok(Self { folder: folder()?, id: id.to_owned() })
    }

    /// From the path of a record.
    pub fn of_record(path: &Path) -> Option<Self> {
        let id = path.file_name()?.to_str()?.strip_suffix(".json")?;
        Some(Self { folder: path.parent()?.to_owned(), id: id.to_owned() })
    }

    /// The forward's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The orders.
    pub fn record(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.id))
    }

    /// The status.
    pub fn status(&self) -> PathBuf {
        self.folder.join(format!("{}.status.json", self.id))
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.id))
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.sock", self.id))
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.id))
    }

    /// Reads the orders.
    ///
    /// # Errors
    /// Where there is no such forward, or the file is not readable or damaged.
    pub fn read_record(&self) -> Result<Record, Error> {
        let path = self.record();
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::NoSuch { id: self.id.clone() },
            _ => Error::File { path: path.clone(), source },
        })?;
        serde_json::from_str(&text).map_err(|error| Error::Damaged { path, message: error.to_string() })
    }

    /// The systemd unit whose service this forward is.
    pub fn unit(&self) -> Option<String> {
        self.read_record().ok()?.unit
    }

    /// Writes the orders, 0600.
    ///
    /// # Errors
    /// Of the file.
    pub fn write_record(&self, record: &Record) -> Result<(), Error> {
        write(&self.record(), 0o600, record)
    }

    /// Writes the status, readable by all.
    ///
    /// # Errors
    /// Of the file.
    pub fn write_status(&self, status: &Status) -> Result<(), Error> {
        write(&self.status(), 0o644, status)
    }

    /// Reads the status as it was last written.
    pub fn read_status(&self) -> Option<Status> {
        serde_json::from_str(&std::fs::read_to_string(self.status()).ok()?).ok()
    }

    /// Takes the lock for the rest of this process's life. None where another process holds it.
    ///
    /// # Errors
    /// Of the file.
    #[cfg(unix)]
    pub fn lock(&self) -> Result<Option<File>, Error> {
        use rustix::fs::FlockOperation;
        let file = self.lock_file(true)?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
            Err(error) => Err(Error::File { path: self.lock_path(), source: error.into() }),
        }
    }

    /// Who holds the lock, if anybody. Never to be asked by the holder itself: closing any descriptor of the file
    /// would free its lock.
    ///
    /// A hand-over leaves the lock to nobody for a moment. It is told from an end by the status, which a process that
    /// ends of its own accord has closed by then; only after a sudden death this takes as long as it may.
    ///
    /// # Errors
    /// Where the lock may not be looked at (another user's).
    #[cfg(unix)]
    pub fn holder(&self) -> Result<Option<Holder>, Error> {
        let deadline = std::time::Instant::now() + SUCCESSION;
        loop {
            let holder = self.holder_now()?;
            let between =
                || self.read_status().is_some_and(|s| s.report.phase.is_live() && s.is_fresh(Timestamp::now()));
            if holder.is_some() || !between() || std::time::Instant::now() >= deadline {
                return Ok(holder);
            }
            std::thread::sleep(SUCCESSION / 20);
        }
    }

    #[cfg(unix)]
    fn holder_now(&self) -> Result<Option<Holder>, Error> {
        use rustix::process::{Flock, FlockType, fcntl_getlk};
        let file = match self.lock_file(false) {
            Ok(file) => file,
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let wanted = Flock::from(FlockType::WriteLock);
        let held = fcntl_getlk(&file, &wanted)
            .map_err(|error| Error::File { path: self.lock_path(), source: error.into() })?;
        Ok(held.map(|lock| Holder { pid: lock.pid }))
    }

    #[cfg(unix)]
    fn lock_file(&self, create: bool) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.lock_path();
        let opened = OpenOptions::new().read(true).write(true).create(create).mode(0o600).open(&path);
        opened.map_err(|source| Error::File { path, source })
    }

    /// Whether its process lives. Of another user's forward only the freshness of its status can tell.
    pub fn is_alive(&self) -> bool {
        #[cfg(unix)]
        if let Ok(holder) = self.holder() {
            return holder.is_some();
        }
        self.read_status().is_some_and(|s| s.is_fresh(Timestamp::now()))
    }

    /// Takes all its files away.
    pub fn remove(&self) {
        let log = self.log();
        let old_log = super::log::rotated(&log);
        for path in [self.record(), self.status(), self.socket(), self.lock_path(), log, old_log] {
            // What is not there need not be removed.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn write(path: &Path, mode: u32, value: &impl serde::Serialize) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let folder = path.parent().ok_or(Error::NoFolder)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    #[cfg(not(unix))]
    let _ = mode;
    serde_json::to_writer_pretty(&mut file, value).map_err(|error| failed(error.into()))?;
    file.write_all(b"\n").map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Forwards in the own folder, by the ids of their records.
///
/// # Errors
/// Where the folder cannot be read; a missing one holds none.
pub fn own() -> Result<Vec<Files>, Error> {
    let folder = statedir::own().ok_or(Error::NoFolder)?.join("forwards");
    let suffix = |name: &str| name.strip_suffix(".json").filter(|id| !id.ends_with(".status")).map(str::to_owned);
    ids(&folder, suffix)
}

fn ids(folder: &Path, id: impl Fn(&str) -> Option<String>) -> Result<Vec<Files>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { path: folder.to_owned(), source }),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<Files> = names
        .filter(|n| !n.starts_with('.'))
        .filter_map(|n| Some(Files { folder: folder.to_owned(), id: id(&n)? }))
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// The status of every forward, own ones and root's.
///
/// # Errors
/// Where the own folder cannot be read.
pub fn list() -> Result<Vec<Status>, Error> {
    let mut folders = vec![statedir::own().ok_or(Error::NoFolder)?];
    let root = PathBuf::from(statedir::ROOT_STATE);
    // An overridden state folder is a world of its own.
    if !folders.contains(&root) && std::env::var_os("BOOKACCESS_STATE_DIR").is_none() {
        folders.push(root);
    }
    let mut all = Vec::new();
    for (number, folder) in folders.iter().enumerate() {
        match ids(&folder.join("forwards"), |name| name.strip_suffix(".status.json").map(str::to_owned)) {
            Ok(files) => {
                all.extend(files.iter().filter_map(|f| Some(f.read_status()?.judged(f.is_alive()))));
            }
            Err(error) if number == 0 => return Err(error),
            Err(_) => {}
        }
    }
    Ok(all)
}
