//! A forward passes from one process to the next: the listening sockets travel to the successor, who serves before the
//! predecessor leaves, so that no connection is refused in between.
//!
//! ```text
//! successor                                predecessor
//! HandOver                          ->
//!                                   <-     Sockets (with the descriptors; as many lines as it takes)
//! opens, serves, its rules settle
//! Serving                           ->     accepts no more, lets go of lock and rules
//!                                   <-     Yours
//! takes the lock, writes the status
//!                                   <-     Live, each second, until its last connection ended
//! end                               ->     drains what is left
//! ```
//!
//! Until `Serving` the predecessor serves as ever: a successor that fails or dies has changed nothing.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, interval, timeout, timeout_at};

use super::control::Desk;
use super::protocol::{Answer, Ask, Given};
use super::registry::Files;
use super::wire::{MOST_DESCRIPTORS, Wire};
use crate::forward::listener::Socket;
use crate::forward::run::{DRAIN, View};

/// A predecessor gives its sockets within this time, or it is not waited for.
const GIVING: Duration = Duration::from_secs(2);
/// How often a predecessor tells how many connections it has.
const TELLING: Duration = Duration::from_secs(1);
/// A successor serves within this time, or it has failed.
const TAKING: Duration = Duration::from_secs(60);

/// What a predecessor gave.
pub struct Legacy {
    pub wire: Wire,
    pub sockets: Vec<Socket>,
}

/// Asks the living process of this forward for its sockets. None where it has none to give: it is closing, or is of a
/// version that knows no hand-over.
pub async fn ask(files: &Files) -> Option<Legacy> {
    match timeout(GIVING, receive(files)).await {
        Ok(Ok(legacy)) => Some(legacy),
        Ok(Err(error)) => {
            tracing::info!(event = "no-legacy", error = %error);
            None
        }
        Err(_) => None,
    }
}

async fn receive(files: &Files) -> io::Result<Legacy> {
    let mut wire = Wire::new(UnixStream::connect(files.socket()).await?);
    wire.send(&Ask::HandOver, &[]).await?;
    let mut sockets = Vec::new();
    loop {
        let Some(Answer::Sockets { sockets: given, more }) = wire.receive().await? else {
            return Err(io::Error::other("no sockets"));
        };
        let descriptors = wire.take(given.len()).ok_or_else(|| io::Error::other("descriptors are missing"))?;
        for (Given { pair, private }, descriptor) in given.into_iter().zip(descriptors) {
            sockets.push(Socket { pair, is_private: private, listener: descriptor.into() });
        }
        if !more {
            return if sockets.is_empty() {
                Err(io::Error::other("it is closing"))
            } else {
                Ok(Legacy { wire, sockets })
            };
        }
    }
}

/// Tells the predecessor that its successor serves, and waits until it let go.
///
/// # Errors
/// Where it is gone; then nothing is in the way either.
pub async fn announce(wire: &mut Wire) -> io::Result<()> {
    wire.send(&Ask::Serving, &[]).await?;
    match timeout(GIVING, wire.receive()).await?? {
        Some(Answer::Yours) => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Gives the sockets away and waits until the successor serves on them.
///
/// # Errors
/// Where it does not; then the sockets are still ours alone.
pub async fn give(wire: &mut Wire, view: &View) -> io::Result<()> {
    let deadline = Instant::now() + TAKING;
    let sockets = view.sockets()?;
    let mut rest = sockets.as_slice();
    loop {
        let (now, later) = rest.split_at(rest.len().min(MOST_DESCRIPTORS));
        rest = later;
        let given = now.iter().map(|s| Given { pair: s.pair, private: s.is_private }).collect();
        let descriptors: Vec<_> = now.iter().map(|s| s.listener.as_fd()).collect();
        let word = Answer::Sockets { sockets: given, more: !rest.is_empty() };
        timeout_at(deadline, wire.send(&word, &descriptors)).await??;
        if rest.is_empty() {
            break;
        }
    }
    match timeout_at(deadline, wire.receive()).await?? {
        Some(Ask::Serving) => Ok(()),
        _ => Err(io::Error::other("the successor ended")),
    }
}

/// The successor's side afterwards: notes how many connections the predecessor still has, and has it drain when this
/// process stops. Ends with the predecessor.
pub async fn outlive(mut wire: Wire, desk: Arc<Desk>) {
    loop {
        let word = tokio::select! {
            word = wire.receive() => word,
            () = desk.stop.cancelled() => break,
        };
        let Ok(Some(Answer::Live { count })) = word else {
            desk.elsewhere.store(0, Relaxed);
            return;
        };
        desk.elsewhere.store(count, Relaxed);
    }
    wire.end().await;
    let gone = async { while let Ok(Some(Answer::Live { .. })) = wire.receive().await {} };
    if timeout(DRAIN + GIVING, gone).await.is_err() {
        tracing::warn!(event = "predecessor-stays");
    }
}

/// The predecessor's side afterwards: lets go, then tells how many connections are still open here. Ends when the
/// successor does.
pub async fn tell(wire: &mut Wire, desk: &Desk) {
    if wire.send(&Answer::Yours, &[]).await.is_err() {
        return;
    }
    let mut ticks = interval(TELLING);
    loop {
        tokio::select! {
            // It says no more, but ends.
            _ = wire.receive::<Ask>() => return,
            _ = ticks.tick() => {
                let count = desk.view().report().live + desk.left();
                if wire.send(&Answer::Live { count }, &[]).await.is_err() {
                    return;
                }
            }
        }
    }
}
