//! Counters of one forward, as its status tells them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use super::balancer::Way;
use super::endpoints::Endpoint;
use super::report::{Numbers, Opening, PodNumbers};

/// Why a connection ended by RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// No pod took it in time.
    NoPod,
    /// Too many wait for a pod already.
    Crowded,
    /// The pod broke off.
    Broken,
    /// Neither side said a word.
    Silent,
    /// The client left while it waited.
    Left,
    /// The forward ended.
    Ended,
    /// Something else on this side.
    Other,
}

/// All of them, as metrics name them.
const ABORTS: [(Abort, &str); 7] = [
    (Abort::NoPod, "no-pod"),
    (Abort::Crowded, "too-many-waiting"),
    (Abort::Broken, "pod-broke-off"),
    (Abort::Silent, "silent"),
    (Abort::Left, "client-left-waiting"),
    (Abort::Ended, "forward-ended"),
    (Abort::Other, "other"),
];

/// Upper bounds of the buckets of opening times, in microseconds: from a pod next door to the longest patience.
const BOUNDS: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// How a connection to a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    Served,
    /// The client broke off.
    Left,
    Aborted,
    /// It went to another pod.
    Retried,
}

#[derive(Debug)]
struct Pod {
    name: String,
    results: [AtomicU64; 4],
}

/// Written by sessions, read by the status.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted, strangers turned away not counted.
    pub total: AtomicU64,
    /// Of these, still open.
    pub live: AtomicU64,
    /// Those of them that no pod serves yet: each will want a descriptor more.
    pub undialled: AtomicU64,
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
    aborted: [AtomicU64; ABORTS.len()],
    /// Counts below each of [`BOUNDS`], and above all.
    opening: [AtomicU64; BOUNDS.len() + 1],
    opening_micros: AtomicU64,
    pods: RwLock<HashMap<IpAddr, Pod>>,
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

    /// A connection ends by RST; gives back why, in words.
    pub fn abort(&self, kind: Abort, why: impl Into<String>) -> String {
        self.aborted[kind as usize].fetch_add(1, Relaxed);
        why.into()
    }

    /// A connection to a pod is open after so long.
    pub fn opened_after(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.opening[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        self.opening_micros.fetch_add(micros, Relaxed);
    }

    /// A connection to a pod ended.
    pub fn ended(&self, endpoint: &Endpoint, result: Result) {
        let count = |pod: &Pod| pod.results[result as usize].fetch_add(1, Relaxed);
        let known = self.pods.read().unwrap_or_else(PoisonError::into_inner).get(&endpoint.ip).map(count);
        if known.is_none() {
            let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
            count(pods.entry(endpoint.ip).or_insert_with(|| Pod {
                name: endpoint.pod.clone().unwrap_or_else(|| endpoint.ip.to_string()),
                results: Default::default(),
            }));
        }
    }

    /// Forgets the numbers of pods that are gone; an address may come back as another pod's.
    pub fn retain(&self, endpoints: &[Endpoint]) {
        let is_there = |ip: &IpAddr, name: &str| {
            endpoints.iter().any(|e| e.ip == *ip && e.pod.as_ref().is_none_or(|pod| pod == name))
        };
        self.pods.write().unwrap_or_else(PoisonError::into_inner).retain(|ip, pod| is_there(ip, &pod.name));
    }

    /// What goes beyond plain counters.
    pub fn numbers(&self) -> Numbers {
        let load = |all: &[AtomicU64]| all.iter().map(|n| n.load(Relaxed)).collect::<Vec<u64>>();
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let numbers = |pod: &Pod| {
            let [served, left, aborted, retried] = [0, 1, 2, 3].map(|index: usize| pod.results[index].load(Relaxed));
            PodNumbers { pod: pod.name.clone(), served, left, aborted, retried }
        };
        let mut by_pod: Vec<PodNumbers> = pods.values().map(numbers).collect();
        by_pod.sort_by(|a, b| a.pod.cmp(&b.pod));
        Numbers {
            by_pod,
            aborted: ABORTS.iter().map(|(a, n)| ((*n).to_owned(), self.aborted[*a as usize].load(Relaxed))).collect(),
            opening: Opening {
                bounds: BOUNDS.iter().map(|micros| *micros as f64 / 1e6).collect(),
                counts: load(&self.opening),
                sum_seconds: self.opening_micros.load(Relaxed) as f64 / 1e6,
            },
            pages: self.pages.load(Relaxed),
            tunnels: BTreeMap::new(),
            tunnels_refused: BTreeMap::new(),
        }
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

/// A counter lowered while this value lives.
pub struct Lowered<'a>(&'a AtomicU64);

impl<'a> Lowered<'a> {
    /// Lowers it by one.
    pub fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_sub(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Lowered<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The lock, whoever panicked while holding it: plain values are whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
