//! Tunnels kept for the next connection: leased to one at a time, and taken back only where nothing can be stuck in
//! them.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use kube::Client;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::link::{Counted, Link, Shared, Standing};
use super::said;
use super::stats::TunnelStats;
use super::upgrade::{Refused, Rung, upgrade};
use crate::forward::stats::lock;

/// An upgrade may take this long, all rungs together.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);
/// Upgrades at a time.
const AT_ONCE: usize = 4;
/// So many tunnels beside the first are opened before anybody asks for them.
const WARM: usize = 1;
/// With so many tunnels into a pod one of them is likely to come free within [`SOON`], and an upgrade costs the cluster
/// as much as four connections.
const SEVERAL: usize = 4;
const SOON: Duration = Duration::from_millis(4);
/// A tunnel is not used more often than this, nor longer: what piles up on the other side goes with it.
const MOST_USES: u32 = 8000;
const MOST_AGE: Duration = Duration::from_secs(600);
/// So many tunnels stay idle for long; more go after [`SHORT_IDLE`].
const KEPT_IDLE: usize = 8;
const SHORT_IDLE: Duration = Duration::from_secs(60);
/// Streams that may be left in a tunnel before their ends came. Each is a thread of the container runtime for 1 s.
const MOST_LEFT: usize = 512;
/// The server works with so many threads of control, and PINGs go round them: as many PONGs prove that none is stuck
/// (`FRAME_WORKERS` of spdystream).
const WORKERS: u32 = 5;
/// The proof takes no longer than this.
const FENCE: Duration = Duration::from_secs(2);
/// Idle tunnels are spoken to this often (kubelets may be set to close after 5 min, load balancers after 1).
const PING_IDLE: Duration = Duration::from_secs(30);
/// Leased ones on which nothing moves, this often.
const PING_LEASED: Duration = Duration::from_secs(10);
/// An idle tunnel without a PONG is given up after so long, a leased one after the second.
const PONG_IDLE: Duration = Duration::from_secs(10);
const PONG_LEASED: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(5);
/// The clock went on so much further than the ticks: the machine slept, and its connections are not to be trusted.
const SLEPT: Duration = Duration::from_secs(20);
/// After failed upgrades the next attempt waits, longer each time. No longer than a client would notice.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The tunnels of one worker.
pub struct Pool {
    client: watch::Receiver<Client>,
    namespace: String,
    /// The rung that worked last.
    rung: AtomicU8,
    limit: usize,
    alive: Arc<AtomicUsize>,
    pods: Mutex<HashMap<Arc<str>, Pod>>,
    upgrades: Semaphore,
    backoff: Mutex<Backoff>,
    kept: AtomicBool,
    pub stats: Arc<TunnelStats>,
}

/// The tunnels into one pod.
#[derive(Default)]
struct Pod {
    idle: Vec<Shared>,
    all: Vec<Weak<Mutex<Link>>>,
    waiting: VecDeque<oneshot::Sender<Result<Lease>>>,
    opening: usize,
}

#[derive(Default)]
struct Backoff {
    until: Option<Instant>,
    pause: Duration,
    last: Option<(ErrorKind, String)>,
}

/// The use of a tunnel by one connection.
pub struct Lease {
    pool: Arc<Pool>,
    pod: Arc<str>,
    link: Option<Shared>,
    stream: Option<u32>,
    /// Others may use the tunnel beside it.
    lent: bool,
}

impl Lease {
    fn new(pool: &Arc<Pool>, pod: &Arc<str>, link: Shared) -> Self {
        pool.stats.leased.fetch_add(1, Relaxed);
        Self { pool: pool.clone(), pod: pod.clone(), link: Some(link), stream: None, lent: false }
    }

    pub(super) fn link(&self) -> &Mutex<Link> {
        self.link.as_ref().expect("taken out only when dropped")
    }

    pub(super) fn opened(&mut self, stream: u32) {
        self.stream = Some(stream);
    }

    /// Lets the next connection use the tunnel while this one still waits for its end.
    pub(super) fn lend(&mut self) {
        if let (Some(link), Some(stream), false) = (&self.link, self.stream, self.lent) {
            self.lent = true;
            self.pool.stats.leased.fetch_sub(1, Relaxed);
            self.pool.lend(&self.pod, link, stream);
        }
    }

    pub(super) fn is_lent(&self) -> bool {
        self.lent
    }

    pub(super) fn abort(mut self) {
        if self.lent {
            return;
        }
        if let Some(link) = self.link.take() {
            self.pool.stats.leased.fetch_sub(1, Relaxed);
            self.pool.aborted(&self.pod, &link, self.stream);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if let (true, Some(stream)) = (self.lent, self.stream) {
            self.pool.ended(&self.pod, &link, stream);
        } else {
            self.pool.stats.leased.fetch_sub(1, Relaxed);
            self.pool.returned(&self.pod, link, self.stream);
        }
    }
}

impl Pool {
    /// For the pods of one namespace, at most `limit` tunnels in all.
    pub fn new(client: watch::Receiver<Client>, namespace: String, limit: usize, stats: Arc<TunnelStats>) -> Self {
        Self {
            client,
            namespace,
            rung: AtomicU8::new(Rung::Spdy as u8),
            limit: limit.max(1),
            alive: Arc::default(),
            pods: Mutex::default(),
            upgrades: Semaphore::new(AT_ONCE),
            backoff: Mutex::default(),
            kept: AtomicBool::new(false),
            stats,
        }
    }

    /// The rung in use.
    pub fn rung(&self) -> Rung {
        Rung::of(self.rung.load(Relaxed))
    }

    /// A tunnel into the pod `name`, of which there may be several in time: `uid` tells them apart. None where the
    /// cluster offers none that can be leased.
    ///
    /// # Errors
    /// NotFound: the pod is gone; PermissionDenied; else the API server is away or refuses.
    pub async fn lease(self: &Arc<Self>, name: &str, uid: &str) -> Result<Option<Lease>> {
        if self.rung() == Rung::Channel {
            return Ok(None);
        }
        let key: Arc<str> = uid.into();
        if let Some(lease) = self.take(name, &key) {
            return Ok(Some(lease));
        }
        self.backing_off()?;
        let answer = {
            let mut pods = lock(&self.pods);
            let pod = pods.entry(key.clone()).or_default();
            if pod.opening == 0
                && self.alive.load(Relaxed) >= self.limit
                && let Some(link) = pod.least_loaded()
            {
                lock(&link).share();
                drop(pods);
                self.stats.shared.fetch_add(1, Relaxed);
                return Ok(Some(Lease::new(self, &key, link)));
            }
            let (ask, answer) = oneshot::channel();
            pod.waiting.retain(|waiter| !waiter.is_closed());
            pod.waiting.push_back(ask);
            if pod.opening < pod.waiting.len() {
                pod.opening += 1;
                tokio::spawn(self.clone().grow(name.to_owned(), key, false));
            }
            answer
        };
        match timeout(UPGRADE_TIMEOUT, answer).await {
            Ok(Ok(Ok(lease))) => Ok(Some(lease)),
            Ok(Ok(Err(error))) if self.rung() == Rung::Channel && error.kind() == ErrorKind::Unsupported => Ok(None),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(ErrorKind::ConnectionAborted.into()),
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "the API server does not open a port-forward")),
        }
    }

    /// Closes the tunnels into pods that are none of these any more, as soon as they are idle.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.pods).retain(|uid, pod| is_there(uid) || pod.opening > 0 || !pod.waiting.is_empty());
    }

    /// Idle tunnels.
    #[cfg(test)]
    pub fn idle(&self) -> usize {
        lock(&self.pods).values().map(|pod| pod.idle.len()).sum()
    }

    fn take(self: &Arc<Self>, name: &str, key: &Arc<str>) -> Option<Lease> {
        let mut pods = lock(&self.pods);
        let pod = pods.get_mut(key)?;
        let mut at = pod.idle.len();
        let link = loop {
            // Last in, first out; those in which too much still ends rest meanwhile.
            at = at.checked_sub(1)?;
            match state(&pod.idle[at]) {
                Idle::Ready => break pod.idle.remove(at),
                Idle::Resting => {}
                Idle::Ended => drop(pod.idle.remove(at)),
            }
        };
        let scarce = pod.idle.is_empty() && pod.opening == 0 && pod.all.len() <= WARM;
        if scarce && self.alive.load(Relaxed) < self.limit && !self.is_backing_off() {
            pod.opening += 1;
            tokio::spawn(self.clone().grow(name.to_owned(), key.clone(), true));
        }
        drop(pods);
        self.stats.reused.fetch_add(1, Relaxed);
        Some(Lease::new(self, key, link))
    }

    /// Opens one more tunnel, for who waits or to have one ready.
    async fn grow(self: Arc<Self>, name: String, key: Arc<str>, warm: bool) {
        let opened = {
            let several = |pod: &Pod| pod.all.iter().filter(|link| link.strong_count() > 0).count() >= SEVERAL;
            if !warm && lock(&self.pods).get(&key).is_some_and(several) {
                tokio::time::sleep(SOON).await;
            }
            let _place = self.upgrades.acquire().await;
            let wanted = warm || {
                let mut pods = lock(&self.pods);
                pods.get_mut(&key).is_some_and(|pod| {
                    pod.waiting.retain(|waiter| !waiter.is_closed());
                    !pod.waiting.is_empty()
                })
            };
            if wanted { Some(self.climb(&name).await) } else { None }
        };
        if let Some(pod) = lock(&self.pods).get_mut(&key) {
            pod.opening = pod.opening.saturating_sub(1);
        }
        match opened {
            None => {}
            Some(Ok(link)) => {
                *lock(&self.backoff) = Backoff::default();
                self.stats.opened.fetch_add(1, Relaxed);
                if !self.kept.swap(true, Relaxed) {
                    tokio::spawn(keep(Arc::downgrade(&self)));
                }
                self.adopt(&key, link);
            }
            Some(Err(error)) => self.failed(&key, &error),
        }
    }

    /// A new tunnel.
    fn adopt(self: &Arc<Self>, key: &Arc<str>, link: Link) {
        let link = Arc::new(Mutex::new(link));
        if let Some(pod) = lock(&self.pods).get_mut(key) {
            pod.all.retain(|link| link.strong_count() > 0);
            pod.all.push(Arc::downgrade(&link));
        }
        self.put(key, link);
    }

    /// Tries the rungs from the remembered one down.
    async fn climb(&self, name: &str) -> Result<Link> {
        let deadline = Instant::now() + UPGRADE_TIMEOUT;
        let client = self.client.borrow().clone();
        let mut rung = self.rung();
        let mut first: Option<Refused> = None;
        while rung != Rung::Channel {
            let counted = Counted::new(&self.alive);
            let refused = match timeout_at(deadline, upgrade(&client, &self.namespace, name, rung)).await {
                Ok(Ok(wire)) => {
                    self.rung.store(rung as u8, Relaxed);
                    return Ok(Link::new(wire, rung == Rung::WebSocket, counted));
                }
                Ok(Err(refused)) => refused,
                Err(_) => Refused::Lost("the API server does not answer the upgrade in time".to_owned()),
            };
            self.stats.refused(&refused);
            tracing::debug!(event = "upgrade-refused", rung = ?rung, why = ?refused);
            if !refused.is_about_the_way() {
                return Err(refused.error(&self.namespace));
            }
            rung = rung.below();
            first.get_or_insert(refused);
        }
        match first {
            // Where the right is missing or the kubelet is away, another protocol changes nothing.
            Some(refused @ Refused::Status { code: 403 | 500.., .. }) => Err(refused.error(&self.namespace)),
            _ => {
                self.rung.store(Rung::Channel as u8, Relaxed);
                Err(ErrorKind::Unsupported.into())
            }
        }
    }

    fn failed(&self, key: &Arc<str>, error: &Error) {
        let (kind, text) = (error.kind(), error.to_string());
        if !matches!(kind, ErrorKind::NotFound | ErrorKind::Unsupported) {
            let mut backoff = lock(&self.backoff);
            backoff.pause = (backoff.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            backoff.until = Some(Instant::now() + jittered(backoff.pause));
            backoff.last = Some((kind, text.clone()));
        }
        let mut pods = lock(&self.pods);
        let Some(pod) = pods.get_mut(key) else { return };
        let one = pod.opening > 0 && !matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied);
        let count = if one { 1 } else { pod.waiting.len() };
        let told: Vec<_> = pod.waiting.drain(..count.min(pod.waiting.len())).collect();
        drop(pods);
        for waiter in told {
            drop(waiter.send(Err(Error::new(kind, text.clone()))));
        }
    }

    fn is_backing_off(&self) -> bool {
        lock(&self.backoff).until.is_some_and(|until| Instant::now() < until)
    }

    fn backing_off(&self) -> Result<()> {
        let backoff = lock(&self.backoff);
        match &backoff.last {
            Some((kind, text)) if backoff.until.is_some_and(|until| Instant::now() < until) => {
                Err(Error::new(*kind, text.clone()))
            }
            _ => Ok(()),
        }
    }

    /// A tunnel that may be used: to who waits, else to the idle ones.
    fn put(self: &Arc<Self>, key: &Arc<str>, mut link: Shared) {
        loop {
            let waiter = {
                let mut pods = lock(&self.pods);
                let Some(pod) = pods.get_mut(key) else { return };
                if pod.idle.iter().any(|idle| Arc::ptr_eq(idle, &link)) {
                    return;
                }
                match pod.waiting.pop_front() {
                    Some(waiter) => waiter,
                    None => {
                        pod.idle.push(link);
                        return;
                    }
                }
            };
            let mut lease = Lease::new(self, key, link);
            match waiter.send(Ok(lease)) {
                Ok(()) => return,
                Err(Ok(back)) => lease = back,
                Err(Err(_)) => return,
            }
            match lease.link.take() {
                Some(back) => {
                    self.stats.leased.fetch_sub(1, Relaxed);
                    link = back;
                }
                None => return,
            }
        }
    }

    /// A connection ended, well or not.
    fn returned(self: &Arc<Self>, key: &Arc<str>, link: Shared, stream: Option<u32>) {
        let Some(stream) = stream else {
            let reusable = lock(&link).streams() == 0;
            if reusable {
                self.put(key, link);
            }
            return;
        };
        let (fence, gone) = {
            let mut held = lock(&link);
            let standing = held.standing(stream);
            if standing == Standing::Doubtful {
                // The server's half of the stream ends with ours.
                drop(held.finish(stream));
            }
            let text = held.leave(stream);
            held.doubtful |= standing == Standing::Doubtful;
            if standing == Standing::Open && held.streams() == 0 {
                held.retire("a connection was left in the middle");
            }
            if held.streams() > 0 {
                return;
            }
            if !held.is_usable() || is_old(&held) {
                self.stats.recycled.fetch_add(1, Relaxed);
                return;
            }
            (std::mem::take(&mut held.doubtful), said::pod_is_gone(&text))
        };
        if gone {
            self.forget(key);
        } else if fence {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(self.clone().fence(key.clone(), link));
            }
        } else {
            self.put(key, link);
        }
    }

    /// A connection has all it wanted, and its end is still to come: the next one need not wait for that.
    fn lend(self: &Arc<Self>, key: &Arc<str>, link: &Shared, stream: u32) {
        {
            let mut held = lock(link);
            held.lend(stream);
            if held.streams() > 0 {
                return;
            }
            if !held.is_usable() || is_old(&held) {
                self.stats.recycled.fetch_add(1, Relaxed);
                return;
            }
        }
        self.put(key, link.clone());
    }

    /// A connection ended, well or not, whose tunnel was lent on before.
    fn ended(&self, key: &Arc<str>, link: &Shared, stream: u32) {
        let mut held = lock(link);
        drop(held.finish(stream));
        held.doubtful |= held.standing(stream) == Standing::Doubtful;
        let text = held.leave(stream);
        drop(held);
        if said::pod_is_gone(&text) {
            self.forget(key);
        }
    }

    /// A connection was broken off: nothing is known of what is under way in its tunnel.
    fn aborted(&self, _key: &Arc<str>, link: &Shared, stream: Option<u32>) {
        let mut held = lock(link);
        if let Some(stream) = stream {
            drop(held.finish(stream));
            held.leave(stream);
        }
        if held.streams() == 0 {
            held.retire("a connection was broken off");
        } else {
            held.doubtful = true;
        }
    }

    /// Proves that nothing is stuck in a tunnel before it is used again.
    async fn fence(self: Arc<Self>, key: Arc<str>, link: Shared) {
        self.stats.fenced.fetch_add(1, Relaxed);
        let wanted = {
            let mut held = lock(&link);
            let wanted = held.pongs().wrapping_add(WORKERS);
            if held.ping(WORKERS).is_err() {
                return;
            }
            wanted
        };
        let passed = poll_fn(|cx| {
            let mut held = lock(&link);
            match held.poll_idle(cx) {
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending if held.pongs() == wanted => Poll::Ready(true),
                Poll::Pending => Poll::Pending,
            }
        });
        if timeout(FENCE, passed).await == Ok(true) {
            self.put(&key, link);
        } else {
            self.stats.stuck.fetch_add(1, Relaxed);
        }
    }

    /// The pod is gone: tunnels into it look alive and lead nowhere.
    fn forget(&self, key: &Arc<str>) {
        if let Some(pod) = lock(&self.pods).get_mut(key) {
            pod.idle.clear();
        }
    }

    /// PINGs, age, and what was lost while the machine slept.
    fn tidy(&self, slept: bool) {
        let mut pods = lock(&self.pods);
        for pod in pods.values_mut() {
            let mut extra = pod.idle.len().saturating_sub(KEPT_IDLE);
            // The oldest come first: the newest are taken and given back at the end.
            pod.idle.retain(|link| {
                let mut held = lock(link);
                let surplus = extra > 0 && held.idle_since.elapsed() > SHORT_IDLE;
                extra -= usize::from(surplus);
                let keep = !slept && !surplus && held.opened_at.elapsed() < MOST_AGE && held.keep_idle();
                self.stats.recycled.fetch_add(u64::from(!keep), Relaxed);
                keep
            });
            pod.all.retain(|link| link.strong_count() > 0);
            for link in pod.all.iter().filter_map(Weak::upgrade) {
                let mut held = lock(&link);
                if held.streams() > 0 && !held.is_broken() {
                    held.keep_leased();
                }
            }
        }
        pods.retain(|_, pod| !pod.idle.is_empty() || !pod.all.is_empty() || pod.opening > 0 || !pod.waiting.is_empty());
    }
}

impl Link {
    /// Speaks to an idle one where it is time. False where it does not answer or has ended.
    fn keep_idle(&mut self) -> bool {
        if self.look().is_err() {
            return false;
        }
        if self.unanswered_since().is_some_and(|since| since.elapsed() >= PONG_IDLE) {
            return false;
        }
        self.pinged_at.elapsed() < PING_IDLE || self.ping(1).is_ok()
    }

    /// Speaks to one whose stream waits, and gives it up where it has not answered for long. Only while nothing is
    /// under way to the pod: a server that is busy with it cannot answer.
    fn keep_leased(&mut self) {
        if !self.listening || self.owes_answer() {
            self.awaited = None;
            return;
        }
        if self.unanswered_since().is_some_and(|since| since.elapsed() >= PONG_LEASED) {
            self.give_up("the API server does not answer any more");
        } else if self.pinged_at.elapsed() >= PING_LEASED {
            drop(self.ping(1));
        }
    }
}

impl Pod {
    fn least_loaded(&mut self) -> Option<Shared> {
        self.all.retain(|link| link.strong_count() > 0);
        let usable = self.all.iter().filter_map(Weak::upgrade).filter(|link| lock(link).is_usable());
        usable.min_by_key(|link| {
            let held = lock(link);
            (held.is_blocked(), held.streams())
        })
    }
}

fn is_old(link: &Link) -> bool {
    link.uses >= MOST_USES || link.opened_at.elapsed() >= MOST_AGE
}

enum Idle {
    Ready,
    /// In it more connections end than may.
    Resting,
    Ended,
}

/// How an idle tunnel stands, as far as is known without asking.
fn state(link: &Shared) -> Idle {
    let mut held = lock(link);
    if held.look().is_err() || !held.is_usable() {
        Idle::Ended
    } else if held.left() + held.lent() >= MOST_LEFT {
        Idle::Resting
    } else {
        Idle::Ready
    }
}

/// Looks after the tunnels as long as there is a pool.
async fn keep(pool: Weak<Pool>) {
    let (mut clock, mut began) = (SystemTime::now(), Instant::now());
    loop {
        tokio::time::sleep(TICK).await;
        let Some(pool) = pool.upgrade() else { return };
        let passed = clock.elapsed().unwrap_or_default();
        pool.tidy(passed > began.elapsed() + SLEPT);
        (clock, began) = (SystemTime::now(), Instant::now());
    }
}

/// Half to the whole of it, so that not all come back at once.
fn jittered(pause: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    pause / 2 + pause / 2 * (nanos % 1000) / 1000
}

#[cfg(test)]
mod tests;
