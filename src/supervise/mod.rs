//! Forwards in the background: when one steps in, how it is started, found, watched and stopped.

#[cfg(unix)]
pub mod control;
#[cfg(unix)]
pub mod daemon;
#[cfg(unix)]
pub mod handover;
pub mod log;
#[cfg(unix)]
pub mod notify;
pub mod protocol;
pub mod registry;
#[cfg(unix)]
pub mod start;
pub mod state;
#[cfg(unix)]
pub mod stop;
#[cfg(unix)]
pub mod unit;
#[cfg(unix)]
pub mod wire;

use crate::error::ExpectedError;

pub use protocol::{Record, Status};
pub use registry::{Files, list};
#[cfg(unix)]
pub use start::{restart, start};
#[cfg(unix)]
pub use stop::{stop, stop_target};

/// A forward that runs in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub id: String,
    /// What a browser opens.
    pub urls: Vec<String>,
    pub pid: u32,
    /// It ran already, and nothing was started.
    pub already: bool,
    /// The service as which it runs; systemd started it.
    pub unit: Option<String>,
}

/// The status of every forward: as its living process tells it now, else as it last wrote it.
///
/// # Errors
/// Where the own folder cannot be read.
pub async fn now() -> Result<Vec<Status>, registry::Error> {
    let mut all = list()?;
    #[cfg(unix)]
    for status in &mut all {
        if status.report.phase.is_live()
            && let Ok(files) = Files::own(&status.report.id)
            && let Some(told) = control::status(&files).await
        {
            *status = told;
        }
    }
    Ok(all)
}

/// Why a background forward cannot be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] registry::Error),
    /// The new process said why it cannot begin.
    #[error(transparent)]
    Refused(#[from] ExpectedError),
    #[error("the new process ended without a word; its log ends with: {last}")]
    Mute { last: String },
    #[error("cannot run {program}: {source}")]
    Spawn { program: String, source: std::io::Error },
    #[error("forward {id} was started with --token; a restart needs it again")]
    TokenNeeded { id: String },
    #[error("forward {id} does not end (pid {pid})")]
    Stuck { id: String, pid: u32 },
    #[cfg(unix)]
    #[error(transparent)]
    Unit(#[from] unit::Error),
    #[error("in the background only on Linux and macOS; run it in the foreground")]
    ForegroundOnly,
}

#[cfg(not(unix))]
mod foreground_only {
    use super::{Error, Started};
    use crate::forward::Spec;

    /// Not on this platform.
    ///
    /// # Errors
    /// Always [`Error::ForegroundOnly`].
    pub async fn start(_spec: &Spec) -> Result<Started, Error> {
        Err(Error::ForegroundOnly)
    }

    /// Not on this platform.
    ///
    /// # Errors
    /// Always [`Error::ForegroundOnly`].
    pub async fn restart(_id: &str, _token: Option<String>) -> Result<Started, Error> {
        Err(Error::ForegroundOnly)
    }

    /// Not on this platform.
    ///
    /// # Errors
    /// Always [`Error::ForegroundOnly`].
    pub async fn stop(_id: &str) -> Result<(), Error> {
        Err(Error::ForegroundOnly)
    }

    /// Nothing runs in the background on this platform.
    ///
    /// # Errors
    /// None.
    pub async fn stop_target(_namespace: &str, _service: &str) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

#[cfg(not(unix))]
pub use foreground_only::{restart, start, stop, stop_target};
