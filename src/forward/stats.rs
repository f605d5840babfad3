//! Counters of one forward, as its status tells them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::Timestamp;

use super::balancer::Way;

/// Written by sessions, read by the status.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted, strangers turned away not counted.
    pub total: AtomicU64,
    /// Of these, still open.
    pub live: AtomicU64,
    /// Of the open ones, waiting for a pod.
    pub parked: AtomicU64,
    /// Ended by RST because of the pod's side, or for want of a pod.
    pub failed: AtomicU64,
    /// Dials and requests that another pod took over.
    pub retried: AtomicU64,
    /// Turned away because a limit was reached.
    pub refused: AtomicU64,
    /// Browsers that were shown that no pod is ready.
    pub pages: AtomicU64,
    /// Bytes from clients.
    pub sent: AtomicU64,
    /// Bytes to clients.
    pub received: AtomicU64,
    direct: AtomicU64,
    tunnel: AtomicU64,
    last_way: Mutex<Option<Way>>,
    last_error: Mutex<Option<(Timestamp, String)>>,
}

impl Stats {
    /// A connection was opened that way.
    pub fn opened(&self, way: Way) {
        self.of(way).fetch_add(1, Relaxed);
        *lock(&self.last_way) = Some(way);
    }

    /// Connections that went that way.
    pub fn count(&self, way: Way) -> u64 {
        self.of(way).load(Relaxed)
    }

    /// The way of the newest connection.
    pub fn last_way(&self) -> Option<Way> {
        *lock(&self.last_way)
    }

    /// Something failed; the newest failure is shown.
    pub fn failure(&self, message: String) {
        *lock(&self.last_error) = Some((Timestamp::now(), message));
    }

    /// The newest failure.
    pub fn last_failure(&self) -> Option<(Timestamp, String)> {
        lock(&self.last_error).clone()
    }

    fn of(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Direct => &self.direct,
            Way::Tunnel => &self.tunnel,
        }
    }
}

/// A counter raised while this value lives.
pub struct Raised<'a>(&'a AtomicU64, u64);

impl<'a> Raised<'a> {
    /// Raises it by one.
    pub fn new(counter: &'a AtomicU64) -> Self {
        let before = counter.fetch_add(1, Relaxed);
        Self(counter, before)
    }

    /// What it was before.
    pub fn before(&self) -> u64 {
        self.1
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The lock, whoever panicked while holding it: plain values are whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
