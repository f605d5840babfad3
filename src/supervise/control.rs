//! The control socket of a background forward: who may write to it, what it answers, and how it is asked.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::log::Follower;
use super::protocol::{Answer, Ask, Status, VERSION};
use super::registry::Files;
use super::wire::Wire;
use crate::error::ExpectedError;
use crate::forward::run::View;

/// A living process answers a question within this time.
const ANSWER: Duration = Duration::from_millis(500);
/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(250);

/// What the process itself has to do; the rest is answered here.
pub enum Order {
    /// Carry out the record as it is now.
    Reload(Option<oneshot::Sender<Result<(), ExpectedError>>>),
    /// Give the sockets to who is at the other end.
    HandOver(Wire),
}

/// What questions are answered from.
pub struct Desk {
    pub files: Files,
    pub stop: CancellationToken,
    pub orders: mpsc::Sender<Order>,
    /// The forward that serves.
    view: Mutex<View>,
    /// Those that it succeeded in this process, while they have connections.
    former: Mutex<Vec<View>>,
    /// Connections that are open at a predecessor's process.
    pub elsewhere: AtomicU64,
}

impl Desk {
    /// For a forward that serves.
    pub fn new(files: Files, view: View, stop: CancellationToken, orders: mpsc::Sender<Order>) -> Self {
        let (view, former) = (Mutex::new(view), Mutex::default());
        Self { files, stop, orders, view, former, elsewhere: AtomicU64::new(0) }
    }

    /// The forward that serves.
    pub fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// Another one serves from now on.
    pub fn succeed(&self, view: View) {
        let former = std::mem::replace(&mut *lock(&self.view), view);
        lock(&self.former).push(former);
    }

    /// Connections that are open at those who no longer serve.
    pub fn left(&self) -> u64 {
        let mut former = lock(&self.former);
        former.retain(|view| view.report().phase.is_live());
        former.iter().map(|view| view.report().live).sum::<u64>() + self.elsewhere.load(Relaxed)
    }

    /// This moment.
    pub fn status(&self) -> Status {
        let mut report = self.view().report();
        report.live += self.left();
        Status { version: VERSION, pid: std::process::id(), written_at: Timestamp::now(), report }
    }

    /// Writes the status for those who may not ask.
    pub fn put_status(&self) {
        if let Err(error) = self.files.write_status(&self.status()) {
            tracing::error!(event = "status-unwritten", error = %error);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the socket, 0600, in the place of a former one, which then nobody finds any more.
///
/// # Errors
/// Of the folder; its path may also be too long for a socket's address.
pub fn open(files: &Files) -> io::Result<UnixListener> {
    let path = files.socket();
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    // Nobody else gets in before the mode is set.
    let aside = tempfile::Builder::new().prefix(".new-").tempdir_in(folder)?;
    let new = aside.path().join("s");
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, &path)?;
    Ok(listener)
}

/// Answers everybody. Never ends by itself.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                // An asker that left in the middle has had enough.
                tokio::spawn(async move { answer(Wire::new(stream), &desk).await.unwrap_or_default() });
            }
            Err(error) => {
                tracing::warn!(event = "control-failed", error = %error);
                tokio::time::sleep(FOLLOW).await;
            }
        }
    }
}

async fn answer(mut wire: Wire, desk: &Desk) -> io::Result<()> {
    while let Some(ask) = wire.receive().await? {
        match ask {
            Ask::Status => wire.send(&Answer::Status { status: Box::new(desk.status()) }, &[]).await?,
            Ask::Logs { tail, follow } => tell_log(&mut wire, desk, tail, follow).await?,
            Ask::Stop => {
                desk.stop.cancel();
                wire.send(&Answer::Done, &[]).await?;
            }
            Ask::Reload => {
                let (done, outcome) = oneshot::channel();
                let _ = desk.orders.send(Order::Reload(Some(done))).await;
                let word = match outcome.await {
                    Ok(Ok(())) => Answer::Done,
                    Ok(Err(error)) => Answer::Refused { exit: error.exit as u8, text: error.text, hints: error.hints },
                    // The process ends.
                    Err(_) => return Ok(()),
                };
                wire.send(&word, &[]).await?;
            }
            Ask::HandOver => {
                let _ = desk.orders.send(Order::HandOver(wire)).await;
                return Ok(());
            }
            Ask::Serving => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(())
}

async fn tell_log(wire: &mut Wire, desk: &Desk, tail: Option<usize>, follow: bool) -> io::Result<()> {
    let (entries, mut follower) = Follower::open(&desk.files.log())?;
    let skip = tail.map_or(0, |tail| entries.len().saturating_sub(tail));
    for entry in entries.into_iter().skip(skip) {
        wire.send(&Answer::Line { text: entry.raw }, &[]).await?;
    }
    while follow && !desk.stop.is_cancelled() {
        tokio::time::sleep(FOLLOW).await;
        for entry in follower.news()? {
            wire.send(&Answer::Line { text: entry.raw }, &[]).await?;
        }
    }
    wire.send(&Answer::Done, &[]).await
}

/// The status that its living process tells now; none where it does not answer at once.
pub async fn status(files: &Files) -> Option<Status> {
    match timeout(ANSWER, asked(files, Ask::Status)).await {
        Ok(Ok(Answer::Status { status })) => Some(*status),
        _ => None,
    }
}

/// Tells its living process to end; whether it heard that.
pub async fn stop(files: &Files) -> bool {
    matches!(timeout(ANSWER, asked(files, Ask::Stop)).await, Ok(Ok(Answer::Done)))
}

/// Whether its living process can be asked.
pub async fn answers(files: &Files) -> bool {
    status(files).await.is_some()
}

async fn asked(files: &Files, ask: Ask) -> io::Result<Answer> {
    let mut wire = Wire::new(UnixStream::connect(files.socket()).await?);
    wire.send(&ask, &[]).await?;
    wire.receive().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
