//! The background process itself.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::control::{self, Desk, Order};
use super::handover::{self, Legacy};
use super::protocol::FirstWord;
use super::registry::{self, Files};
use super::wire::Wire;
use super::{Error, log, notify};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::listener::Socket;
use crate::forward::run::{self, Forward};
use crate::forward::watch::Over;

/// Between two rewrites of the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A reader of the lock, or a predecessor that is just ending, holds it no longer than this.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Carries out the orders in `record` until SIGTERM, or until the target or the cluster is gone. Its first word goes
/// to stdout, everything else to the log.
///
/// # Errors
/// Where it cannot begin; the same was said as first word.
pub async fn run(record: &Path) -> Result<Exit, ExpectedError> {
    // The end of the session that started us is not our end. It fails only where we lead a session already.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let served = async {
        let files =
            Files::of_record(record).ok_or_else(|| registry::Error::NoSuch { id: record.display().to_string() });
        serve(begin(files.map_err(Error::Files)?, Vec::new()).await?).await
    };
    match served.await {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => {
            tracing::error!(event = "not-started", error = %error);
            let word =
                FirstWord::Failed { exit: error.exit as u8, text: error.text.clone(), hints: error.hints.clone() };
            let _ = say(&word);
            Err(error)
        }
    }
}

/// The same as a service of systemd's, which hears how it fares; `kept` are the sockets of its last life.
///
/// # Errors
/// Where it cannot begin.
pub async fn run_service(files: Files, kept: Vec<Socket>) -> Result<Exit, ExpectedError> {
    let served = async { serve(begin(files, kept).await?).await };
    served.await.inspect_err(|error| tracing::error!(event = "not-started", error = %error))?;
    Ok(Exit::Ok)
}

struct Begun {
    forward: Forward,
    files: Files,
    /// Given by flag, in no file.
    token: Option<String>,
    is_service: bool,
    seat: Seat,
}

/// How this process comes by its place.
enum Seat {
    /// The lock, held as long as this process serves.
    Free(std::fs::File),
    /// A predecessor serves, and gave its sockets.
    Taken(Legacy),
}

async fn begin(files: Files, kept: Vec<Socket>) -> Result<Begun, ExpectedError> {
    let record = files.read_record().map_err(Error::Files)?;
    let mut spec = record.spec;
    let mut token = None;
    if record.token {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|source| Error::Spawn { program: "stdin".to_owned(), source })?;
        token = Some(text);
    }
    spec.connection.token.clone_from(&token);
    let mut seat = seat(&files).await?;
    log::init(&files.log())
        .map_err(|source| registry::Error::File { path: files.log(), source })
        .map_err(Error::Files)?;
    let given = match &mut seat {
        Seat::Free(_) => {
            remove_leftovers(&files).await;
            kept
        }
        Seat::Taken(legacy) => std::mem::take(&mut legacy.sockets),
    };
    let forward = Forward::take_over(spec, given).await?;
    tracing::info!(event = "started", pid = std::process::id(), urls = forward.view().urls().join(" "));
    Ok(Begun { forward, files, token, is_service: record.unit.is_some(), seat })
}

async fn seat(files: &Files) -> Result<Seat, Error> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(lock) = files.lock()? {
            return Ok(Seat::Free(lock));
        }
        if let Some(legacy) = handover::ask(files).await {
            return Ok(Seat::Taken(legacy));
        }
        if Instant::now() >= deadline {
            return Err(stuck(files));
        }
        sleep(LOCK_POLL).await;
    }
}

/// The lock that a predecessor has just let go.
async fn lock(files: &Files) -> Result<std::fs::File, Error> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(lock) = files.lock()? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(stuck(files));
        }
        sleep(LOCK_POLL).await;
    }
}

fn stuck(files: &Files) -> Error {
    Error::Stuck { id: files.id().to_owned(), pid: files.read_status().map_or(0, |s| s.pid) }
}

fn say(word: &FirstWord) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

type Run = JoinHandle<Option<Over>>;

/// What runs in this process: the forward that serves, and those that it succeeded.
struct House {
    desk: Arc<Desk>,
    hurry: CancellationToken,
    token: Option<String>,
    current: Run,
    former: Vec<Run>,
}

async fn serve(begun: Begun) -> Result<(), ExpectedError> {
    let Begun { forward, files, token, is_service, seat } = begun;
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let (orders, mut to_do) = mpsc::channel(4);
    tokio::spawn(obey_signals(stop.clone(), hurry.clone(), orders.clone()));
    let view = forward.view();
    let desk = Arc::new(Desk::new(files, view.clone(), stop.clone(), orders));
    let current = tokio::spawn(running(forward, stop.clone(), hurry.clone()));
    let mut house = House { desk: desk.clone(), hurry, token, current, former: Vec::new() };
    tokio::select! {
        () = view.settled() => {}
        () = stop.cancelled() => {}
    }
    let (held, predecessor) = match seat {
        Seat::Free(lock) => (lock, None),
        Seat::Taken(Legacy { mut wire, .. }) => {
            if let Err(error) = handover::announce(&mut wire).await {
                tracing::warn!(event = "predecessor-gone", error = %error);
            }
            (lock(&desk.files).await?, Some(tokio::spawn(handover::outlive(wire, desk.clone()))))
        }
    };
    let control = control::open(&desk.files)
        .inspect_err(|error| tracing::error!(event = "no-control", error = %error))
        .map(|listener| tokio::spawn(control::serve(listener, desk.clone())));
    desk.put_status();
    let dog = tokio::spawn(notify::feed_watchdog({
        let desk = desk.clone();
        move || desk.view()
    }));
    if is_service {
        notify::ready(&view);
    } else if say(&FirstWord::Ready { urls: view.urls().to_vec() }).is_err() {
        // Who started us did not wait to hear it: he was interrupted.
        tracing::warn!(event = "abandoned");
        stop.cancel();
    }
    let writer = tokio::spawn(write_status(desk.clone()));
    let successor = house.obey(&mut to_do).await;
    writer.abort();
    // The last write of the aborted task is over before the final one begins.
    let _ = writer.await;
    if let Ok(control) = control {
        control.abort();
        // The socket is closed when this returns.
        let _ = control.await;
    }
    if let Some(mut wire) = successor {
        drop(held);
        house.leave(&mut wire).await;
        return Ok(());
    }
    // Also where the target is gone.
    stop.cancel();
    notify::stopping(&desk.view());
    house.ended().await;
    dog.abort();
    if let Some(predecessor) = predecessor {
        let _ = predecessor.await;
    }
    desk.put_status();
    drop(held);
    Ok(())
}

async fn running(forward: Forward, stop: CancellationToken, hurry: CancellationToken) -> Option<Over> {
    let over = forward.run(&stop, &hurry).await;
    tracing::info!(event = "ended", over = ?over);
    over
}

impl House {
    /// Carries out orders until the forward ends; then none, or until a successor serves: the connection to it.
    async fn obey(&mut self, to_do: &mut mpsc::Receiver<Order>) -> Option<Wire> {
        loop {
            let order = tokio::select! {
                _ = &mut self.current => return None,
                Some(order) = to_do.recv() => order,
            };
            match order {
                Order::Reload(done) => {
                    let outcome = self.reload().await;
                    if let Err(error) = &outcome {
                        tracing::error!(event = "not-reloaded", error = %error);
                    }
                    if let Some(done) = done {
                        // Who asked may be gone.
                        let _ = done.send(outcome);
                    }
                }
                Order::HandOver(mut wire) => match handover::give(&mut wire, &self.desk.view()).await {
                    Ok(()) => return Some(wire),
                    Err(error) => tracing::warn!(event = "not-handed-over", error = %error),
                },
            }
        }
    }

    /// Opens the forward anew with the record as it is now, on the same sockets; the former one gives way when that
    /// serves. Where it cannot begin the former one goes on.
    async fn reload(&mut self) -> Result<(), ExpectedError> {
        let mut spec = self.desk.files.read_record().map_err(Error::Files)?.spec;
        spec.connection.token.clone_from(&self.token);
        let former = self.desk.view();
        let sockets = former.sockets().map_err(run::Error::Threads)?;
        if sockets.is_empty() {
            // It is closing.
            return Ok(());
        }
        notify::reloading();
        let forward = Forward::take_over(spec, sockets).await.inspect_err(|_| notify::ready(&former))?;
        let view = forward.view();
        let new = tokio::spawn(running(forward, self.desk.stop.clone(), self.hurry.clone()));
        view.settled().await;
        former.give_way();
        self.desk.succeed(view);
        self.former.push(std::mem::replace(&mut self.current, new));
        self.former.retain(|run| !run.is_finished());
        notify::ready(&self.desk.view());
        tracing::info!(event = "reloaded");
        Ok(())
    }

    /// After the hand-over: stays until the last connection here ended, or the successor does.
    async fn leave(mut self, wire: &mut Wire) {
        self.desk.view().give_way();
        tracing::info!(event = "handed-over");
        let desk = self.desk.clone();
        let told = handover::tell(wire, &desk);
        tokio::select! {
            () = self.ended() => return,
            () = told => {}
        }
        desk.stop.cancel();
        self.ended().await;
    }

    /// Waits until nothing runs here any more.
    async fn ended(&mut self) {
        if !self.current.is_finished() {
            // A panic was logged.
            let _ = (&mut self.current).await;
        }
        for former in &mut self.former {
            if !former.is_finished() {
                let _ = former.await;
            }
        }
    }
}

/// SIGTERM and SIGINT stop, a second one hurries; SIGHUP has the record read again.
async fn obey_signals(stop: CancellationToken, hurry: CancellationToken, orders: mpsc::Sender<Order>) {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {
                // Where orders wait already, one of them reads the record as it is then.
                let _ = orders.try_send(Order::Reload(None));
                continue;
            }
        }
        if stop.is_cancelled() {
            hurry.cancel();
        }
        stop.cancel();
    }
}

async fn write_status(desk: Arc<Desk>) {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        desk.put_status();
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
