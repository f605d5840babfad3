//! What can be made to go wrong at the API server, and what it counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

/// How a port-forward is spoken, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// POST, `Upgrade: SPDY/3.1`.
    Spdy,
    /// GET, a WebSocket with the subprotocol `SPDY/3.1+portforward.k8s.io` (KEP-4006).
    Tunnelled,
    /// GET, a WebSocket with the subprotocol `v4.channel.k8s.io`.
    Channel,
}

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The process is killed: FIN, and nothing that says goodbye.
    Fin,
    /// RST.
    Reset,
    /// The host is gone: nothing comes and nothing is read any more.
    Stall,
}

/// An answer instead of an upgrade.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub body: String,
}

impl Refusal {
    /// Of the API server, as a Status object.
    pub fn status(status: u16, reason: &str, message: &str) -> Self {
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                          "message": message, "reason": reason, "code": status});
        Self { status, kind: "application/json", body: body.to_string() }
    }

    /// Of kubelet or the runtime, passed through.
    pub fn text(status: u16, message: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: message.to_owned() }
    }

    /// RBAC says no.
    pub fn forbidden(verb: &str) -> Self {
        let message = format!(
            "pods \"pod-0\" is forbidden: User \"test\" cannot {verb} resource \"pods/portforward\" in API group \"\" in \
             the namespace \"bookinfo\""
        );
        Self::status(403, "Forbidden", &message)
    }

    /// The pod has failed or is being deleted.
    pub fn pod_not_found() -> Self {
        Self::text(500, "pod not found (\"pod-0_bookinfo\")")
    }

    /// The pod waits for a node.
    pub fn unscheduled() -> Self {
        Self::status(400, "BadRequest", "pod pod-0 does not have a host assigned")
    }

    /// An API server older than the rung (KEP-4006), or a proxy that knows only HTTP.
    pub fn no_such_rung(rung: Rung) -> Self {
        match rung {
            Rung::Spdy => Self::text(400, "Upgrade request required"),
            Rung::Tunnelled | Rung::Channel => Self::text(400, "query parameter \"port\" is required"),
        }
    }
}

/// What goes wrong now.
#[derive(Default)]
pub struct Faults {
    refusals: Mutex<HashMap<Rung, Refusal>>,
    delay: Mutex<Duration>,
    cut: Mutex<Option<(usize, Break)>>,
    /// Kubelet and containerd of the 1.6 series: no RST of the streams after an error.
    old_runtime: Mutex<bool>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// Upgrades of this rung are answered so, or accepted again.
    pub fn refuse(&self, rung: Rung, refusal: Option<Refusal>) {
        match refusal {
            Some(refusal) => lock(&self.refusals).insert(rung, refusal),
            None => lock(&self.refusals).remove(&rung),
        };
    }

    /// An upgrade is answered so much later.
    pub fn delay(&self, by: Duration) {
        *lock(&self.delay) = by;
    }

    /// After so many more bytes of applications, the connection that carries the last of them breaks.
    pub fn cut_after(&self, bytes: usize, how: Break) {
        *lock(&self.cut) = Some((bytes, how));
    }

    /// The pod's node runs containerd 1.6, or 2 again.
    pub fn old_runtime(&self, old: bool) {
        *lock(&self.old_runtime) = old;
    }

    pub(super) fn refusal(&self, rung: Rung) -> Option<Refusal> {
        lock(&self.refusals).get(&rung).cloned()
    }

    pub(super) fn delayed(&self) -> Duration {
        *lock(&self.delay)
    }

    pub(super) fn is_old(&self) -> bool {
        *lock(&self.old_runtime)
    }

    /// Counts payload on the cut. Where it is due: how much of this payload still goes out, and what follows.
    pub(super) fn cut(&self, length: usize) -> Option<(usize, Break)> {
        let mut cut = lock(&self.cut);
        let (left, how) = (*cut)?;
        if length < left {
            *cut = Some((left - length, how));
            return None;
        }
        *cut = None;
        Some((left, how))
    }
}

/// What the server counted since it began.
#[derive(Default)]
pub(super) struct Counters {
    pub spdy: AtomicU64,
    pub tunnelled: AtomicU64,
    pub channel: AtomicU64,
    pub refused: AtomicU64,
    pub streams: AtomicU64,
    pub pings: AtomicU64,
    pub live: AtomicU64,
}

/// What a test reads of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Upgrades accepted, by rung.
    pub spdy: u64,
    pub tunnelled: u64,
    pub channel: u64,
    /// Upgrades refused, for whatever reason.
    pub refused: u64,
    /// Pairs of streams (or v4 channels) that were complete, each one dial of an application.
    pub streams: u64,
    /// PINGs sent back.
    pub pings: u64,
    /// Upgraded connections that are open.
    pub live: u64,
}

impl Counted {
    /// Upgrades accepted, on whatever rung.
    pub fn upgrades(&self) -> u64 {
        self.spdy + self.tunnelled + self.channel
    }
}

impl Counters {
    pub(super) fn accepted(&self, rung: Rung) {
        match rung {
            Rung::Spdy => &self.spdy,
            Rung::Tunnelled => &self.tunnelled,
            Rung::Channel => &self.channel,
        }
        .fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Counted {
        Counted {
            spdy: self.spdy.load(Relaxed),
            tunnelled: self.tunnelled.load(Relaxed),
            channel: self.channel.load(Relaxed),
            refused: self.refused.load(Relaxed),
            streams: self.streams.load(Relaxed),
            pings: self.pings.load(Relaxed),
            live: self.live.load(Relaxed),
        }
    }
}
