//! The background process itself.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::protocol::{FirstWord, Status, VERSION};
use super::registry::{self, Files};
use super::{Error, log};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::run::{Forward, View};

/// Between two rewrites of the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A reader of the lock, or a predecessor that is just ending, holds it no longer than this.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Carries out the orders in `record` until SIGTERM, or until the target or the cluster is gone. Its first word goes
/// to stdout, everything else to the log.
///
/// # Errors
/// Where it cannot begin; the same was said as first word.
pub async fn run(record: &Path) -> Result<Exit, ExpectedError> {
    // The end of the session that started us is not our end. It fails only where we lead a session already.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    match begin(record).await {
        Ok(begun) => {
            serve(begun).await;
            Ok(Exit::Ok)
        }
        Err(error) => {
            tracing::error!(event = "not-started", error = %error);
            let word =
                FirstWord::Failed { exit: error.exit as u8, text: error.text.clone(), hints: error.hints.clone() };
            let _ = say(&word);
            Err(error)
        }
    }
}

struct Begun {
    forward: Forward,
    files: Files,
    /// Held as long as this process serves.
    _lock: std::fs::File,
}

async fn begin(path: &Path) -> Result<Begun, ExpectedError> {
    let files = Files::of_record(path).ok_or_else(|| registry::Error::NoSuch { id: path.display().to_string() });
    let files = files.map_err(Error::Files)?;
    let record = files.read_record().map_err(Error::Files)?;
    let mut spec = record.spec;
    if record.token {
        let mut token = String::new();
        std::io::stdin()
            .read_to_string(&mut token)
            .map_err(|source| Error::Spawn { program: "stdin".to_owned(), source })?;
        spec.connection.token = Some(token);
    }
    let lock = lock(&files).await?;
    log::init(&files.log())
        .map_err(|source| registry::Error::File { path: files.log(), source })
        .map_err(Error::Files)?;
    remove_leftovers(&files).await;
    let forward = Forward::open(spec).await?;
    tracing::info!(event = "started", pid = std::process::id(), urls = forward.view().urls().join(" "));
    Ok(Begun { forward, files, _lock: lock })
}

async fn lock(files: &Files) -> Result<std::fs::File, Error> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(lock) = files.lock()? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            let holder = files.read_status().map_or(0, |s| s.pid);
            return Err(Error::Stuck { id: files.id().to_owned(), pid: holder });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn say(word: &FirstWord) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

async fn serve(begun: Begun) {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(obey_signals(stop.clone(), hurry.clone()));
    let view = begun.forward.view();
    let writer = tokio::spawn(write_status(begun.files.clone(), view.clone()));
    let ready = async {
        view.settled().await;
        put_status(&begun.files, &view);
        if say(&FirstWord::Ready { urls: view.urls().to_vec() }).is_err() {
            // Who started us did not wait to hear it: he was interrupted.
            tracing::warn!(event = "abandoned");
            stop.cancel();
        }
    };
    let (over, ()) = tokio::join!(begun.forward.run(&stop, &hurry), ready);
    writer.abort();
    // The last write of the aborted task is over before the final one begins.
    let _ = writer.await;
    tracing::info!(event = "ended", over = ?over);
    put_status(&begun.files, &view);
}

/// SIGTERM and SIGINT stop, a second one hurries; SIGHUP means nothing to us.
async fn obey_signals(stop: CancellationToken, hurry: CancellationToken) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return;
    };
    loop {
        let told = tokio::select! {
            _ = term.recv() => true,
            _ = int.recv() => true,
            _ = hup.recv() => false,
        };
        if told && stop.is_cancelled() {
            hurry.cancel();
        }
        if told {
            stop.cancel();
        }
    }
}

async fn write_status(files: Files, view: View) {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        put_status(&files, &view);
    }
}

fn put_status(files: &Files, view: &View) {
    let status =
        Status { version: VERSION, pid: std::process::id(), written_at: Timestamp::now(), report: view.report() };
    if let Err(error) = files.write_status(&status) {
        tracing::error!(event = "status-unwritten", error = %error);
    }
}

/// Tables of forwards that are no more, in this network namespace. They do nothing without leases, but are litter.
async fn remove_leftovers(own: &Files) {
    #[cfg(target_os = "linux")]
    if crate::statedir::is_root() {
        use crate::forward::front::{remove_table, table_name, tables};
        let living: Vec<String> = registry::own()
            .unwrap_or_default()
            .iter()
            .filter(|f| f.id() != own.id() && f.is_alive())
            .map(|f| table_name(f.id()))
            .collect();
        for table in tables().await.unwrap_or_default() {
            if !living.contains(&table) {
                tracing::info!(event = "leftover-removed", table = table);
                let _ = remove_table(&table).await;
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = own;
}
