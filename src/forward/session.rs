//! One connection from its accept to its end: pick, dial, relay; park while no pod is there; try another pod while
//! nothing came back yet. A failure ends by RST, never as the clean end of a truncated answer.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::balancer::{Balancer, Choice, Way};
use super::carrier::Upstream;
use super::endpoints::Endpoint;
use super::relay::{End, Replay, Terms, relay};
use super::stats::{Raised, Stats, lock};
use super::watch::Endpoints;
use super::worker::Worker;

/// What the sessions of one forward share, over all data threads.
pub struct Shared {
    pub endpoints: watch::Receiver<Endpoints>,
    /// The ways allowed, best first.
    pub ways: Vec<Way>,
    pub balancer: Mutex<Balancer>,
    pub stats: Stats,
    /// Places for connections that wait for a pod.
    pub parking: Semaphore,
    /// So long a connection may wait for a pod, from its accept on.
    pub patience: Duration,
    /// So long a connection may lie without a byte from either side. None: for ever.
    pub first_byte: Option<Duration>,
    pub began: Instant,
    /// No new connection is taken, and those that lie idle between two requests end.
    pub closing: CancellationToken,
    pub doors: super::doors::Doors,
    dice: AtomicU64,
}

/// Connections that may wait for a pod at a time (forwarders.md §6.2).
const PARKING_PLACES: usize = 128;
/// As long as browsers and proxies commonly wait; a rolling update or a restart is over by then.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A request that may be repeated is repeated on so many pods.
const REPEATS: usize = 3;
/// Between two rounds over endpoints that all fail.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// For one forward.
    pub fn new(endpoints: watch::Receiver<Endpoints>, ways: Vec<Way>) -> Self {
        Self {
            endpoints,
            ways,
            balancer: Mutex::default(),
            stats: Stats::default(),
            parking: Semaphore::new(PARKING_PLACES),
            patience: PATIENCE,
            first_byte: None,
            began: Instant::now(),
            closing: CancellationToken::new(),
            doors: super::doors::Doors::default(),
            dice: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Milliseconds since the forward began, the balancer's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Picks an endpoint and takes a seat there.
    fn pick(&self, pair: usize, tried: &[Choice]) -> Option<Seat<'_>> {
        // Weyl sequence through a finaliser (SplitMix64): spread is all that is asked of these dice.
        let mut dice = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        dice = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        dice ^= dice >> 27;
        let set = self.endpoints.borrow().pair(pair);
        let now = self.now();
        let mut balancer = lock(&self.balancer);
        let choice = balancer.pick(&set, &self.ways, tried, now, dice)?;
        balancer.opened(choice.endpoint());
        Some(Seat { shared: self, choice, worked: false })
    }
}

/// A connection in the balancer's books, from its dial on.
struct Seat<'a> {
    shared: &'a Shared,
    choice: Choice,
    worked: bool,
}

impl Seat<'_> {
    fn name(&self) -> String {
        let endpoint = self.choice.endpoint();
        endpoint.pod.clone().unwrap_or_else(|| endpoint.ip.to_string())
    }

    /// It failed, and another one is tried.
    fn give_up(self, event: &str, error: &str, tried: &mut Vec<Choice>) {
        tracing::info!(event = event, pod = self.name(), way = ?self.choice.way, error = error);
        self.shared.stats.retried.fetch_add(1, Relaxed);
        tried.push(self.choice.clone());
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut balancer = lock(&self.shared.balancer);
        if self.worked {
            balancer.worked(self.choice.endpoint(), self.choice.way);
        }
        balancer.closed(self.choice.endpoint());
    }
}

/// A client's connection. Dropped without [`Client::end`], as when the forward breaks off, it ends by RST.
pub struct Client {
    stream: TcpStream,
    peer: IpAddr,
    worker: Arc<Worker>,
    /// None: not over yet.
    ended: Option<Result<(), String>>,
}

impl Client {
    /// Of a connection that its door let in.
    pub fn new(stream: TcpStream, peer: IpAddr, worker: Arc<Worker>) -> Self {
        Self { stream, peer, worker, ended: None }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        if let Err(why) = self.ended.take().unwrap_or_else(|| Err("the forward ends".to_owned())) {
            tracing::warn!(event = "aborted", reason = %why);
            shared.stats.failed.fetch_add(1, Relaxed);
            shared.stats.failure(why);
            drop(self.stream.set_zero_linger());
        }
        shared.doors.leave(self.peer);
        shared.stats.live.fetch_sub(1, Relaxed);
    }
}

/// Serves one connection to the end. `replay` is what the client sent before it was accepted.
pub async fn serve(mut client: Client, pair: usize, mut replay: Replay) {
    let worker = client.worker.clone();
    client.ended = Some(attempts(&mut client.stream, pair, &mut replay, &worker).await);
}

async fn attempts(client: &mut TcpStream, pair: usize, replay: &mut Replay, worker: &Worker) -> Result<(), String> {
    let shared = &*worker.shared;
    let deadline = Instant::now() + shared.patience;
    let mut endpoints = None;
    let mut tried: Vec<Choice> = Vec::new();
    let mut repeats = 0;
    let mut pause = FIRST_PAUSE;
    let mut last = "no pod is ready".to_owned();
    loop {
        // Seen from here on: a change before the pick must not be waited for.
        if let Some(endpoints) = &mut endpoints {
            watch::Receiver::borrow_and_update(endpoints);
        }
        let Some(mut seat) = shared.pick(pair, &tried) else {
            let Some(endpoints) = &mut endpoints else {
                endpoints = Some(shared.endpoints.clone());
                continue;
            };
            // All failed: those that refuse may be starting. None there: wait for one.
            let until = if tried.is_empty() { deadline } else { deadline.min(Instant::now() + pause) };
            pause = (pause * 2).min(LONGEST_PAUSE);
            tried.clear();
            park(client, replay, shared, endpoints, until).await?;
            if Instant::now() >= deadline {
                return Err(last);
            }
            continue;
        };
        let (upstream, sent) = match worker.carriers.open(&seat.choice, replay.bytes()).await {
            Ok(open) => open,
            Err(error) => {
                last = format!("{}: {error}", seat.name());
                shun(shared, seat.choice.endpoint(), seat.choice.way, &error);
                seat.give_up("dial-failed", &error.to_string(), &mut tried);
                continue;
            }
        };
        shared.stats.opened(seat.choice.way);
        match carry(client, upstream, replay, sent, worker).await {
            End::Clean => {
                seat.worked = true;
                return Ok(());
            }
            // The client left; that says nothing about the pod.
            End::ClientLeft => return Ok(()),
            End::Silent => return Err("no byte from either side".to_owned()),
            End::NotDelivered(why) => {
                last = format!("{}: {why}", seat.name());
                shun(shared, seat.choice.endpoint(), seat.choice.way, &ErrorKind::ConnectionRefused.into());
                seat.give_up("dial-failed", &why, &mut tried);
            }
            End::Unanswered(why) if repeats < REPEATS => {
                repeats += 1;
                last = format!("{}: {why}", seat.name());
                seat.give_up("repeated", &why, &mut tried);
            }
            End::Unanswered(why) | End::Broken(why) => return Err(format!("{}: {why}", seat.name())),
        }
    }
}

/// Remembers a failed dial: who refuses is tried again soon, who cannot be reached is left to the scout.
pub(super) fn shun(shared: &Shared, endpoint: &Endpoint, way: Way, error: &std::io::Error) {
    use ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    let now = shared.now();
    let mut balancer = lock(&shared.balancer);
    match error.kind() {
        TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown if way == Way::Direct => {
            balancer.unreachable(endpoint, way, now);
        }
        _ => balancer.failed(endpoint, way, now),
    }
}

async fn carry(
    client: &mut TcpStream,
    mut upstream: Upstream,
    replay: &mut Replay,
    sent: usize,
    worker: &Worker,
) -> End {
    let shared = &*worker.shared;
    shared.stats.sent.fetch_add(sent as u64, Relaxed);
    let terms = Terms { stats: &shared.stats, closing: &worker.closing, first_byte: shared.first_byte };
    let rest = replay.bytes()[sent..].to_vec();
    let end = match &mut upstream {
        Upstream::Direct(direct) => relay(client, direct, replay, rest, sent, &terms).await,
        Upstream::Tunnel(stream) => relay(client, &mut **stream, replay, rest, sent, &terms).await,
    };
    if !matches!(end, End::Clean) {
        upstream.abort();
    }
    end
}

/// Waits for a change of the endpoints or for `until`, and takes up what the client sends meanwhile.
async fn park(
    client: &mut TcpStream,
    replay: &mut Replay,
    shared: &Shared,
    endpoints: &mut watch::Receiver<Endpoints>,
    until: Instant,
) -> Result<(), String> {
    let _place = shared.parking.try_acquire().map_err(|_| "too many connections wait for a pod".to_owned())?;
    let _parked = Raised::new(&shared.stats.parked);
    loop {
        tokio::select! {
            changed = timeout_at(until, endpoints.changed()) => {
                // The sender is gone only when the forward ends; then the deadline is what is left to wait for.
                if matches!(changed, Ok(Err(_))) {
                    return Err("the forward ends".to_owned());
                }
                return Ok(());
            }
            taken = replay.take_up(client), if replay.has_room() => {
                taken.map_err(|error| format!("the client left: {error}"))?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
