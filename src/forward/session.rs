//! One connection from its accept to its end: pick, dial, relay; park while no pod is there; try another pod while
//! nothing came back yet. A failure ends by RST, never as the clean end of a truncated answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::balancer::{Balancer, Choice, Way};
use super::carrier::{Carriers, Upstream};
use super::relay::{End, Replay, relay};
use super::stats::{Raised, Stats, lock};
use super::watch::Endpoints;

/// What the sessions of one forward share.
pub struct Shared {
    pub endpoints: watch::Receiver<Endpoints>,
    pub carriers: Carriers,
    /// The ways allowed, best first.
    pub ways: Vec<Way>,
    pub balancer: Mutex<Balancer>,
    pub stats: Stats,
    /// Places for connections that wait for a pod.
    pub parking: Semaphore,
    /// So long a connection may wait for a pod, from its accept on.
    pub patience: Duration,
    pub began: Instant,
    /// No new connection is taken, and those that lie idle between two requests end.
    pub closing: CancellationToken,
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
    pub fn new(endpoints: watch::Receiver<Endpoints>, carriers: Carriers, ways: Vec<Way>) -> Self {
        Self {
            endpoints,
            carriers,
            ways,
            balancer: Mutex::default(),
            stats: Stats::default(),
            parking: Semaphore::new(PARKING_PLACES),
            patience: PATIENCE,
            began: Instant::now(),
            closing: CancellationToken::new(),
            dice: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Milliseconds since the forward began, the balancer's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn pick(&self, pair: usize, tried: &[Choice]) -> Option<Choice> {
        // Weyl sequence through a finaliser (SplitMix64): spread is all that is asked of these dice.
        let mut dice = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        dice = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        dice ^= dice >> 27;
        let set = self.endpoints.borrow().pair(pair);
        lock(&self.balancer).pick(&set, &self.ways, tried, self.now(), dice)
    }
}

/// A live connection in the balancer's books.
struct Seated<'a>(&'a Shared, &'a Choice);

impl<'a> Seated<'a> {
    fn new(shared: &'a Shared, choice: &'a Choice) -> Self {
        lock(&shared.balancer).opened(&choice.0);
        shared.stats.opened(choice.1);
        Self(shared, choice)
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        lock(&self.0.balancer).closed(&self.1.0);
    }
}

/// Serves one connection to the end, or until `abort`.
pub async fn serve(mut client: TcpStream, pair: usize, shared: &Shared, abort: &CancellationToken) {
    let _live = Raised::new(&shared.stats.live);
    let ended = tokio::select! {
        ended = attempts(&mut client, pair, shared) => ended,
        () = abort.cancelled() => Err("the forward ends".to_owned()),
    };
    if let Err(why) = ended {
        tracing::warn!(event = "aborted", reason = %why);
        shared.stats.failed.fetch_add(1, Relaxed);
        shared.stats.failure(why);
        drop(client.set_zero_linger());
    }
}

/// Until one attempt carried the connection to its end. The error is the reason for an RST.
async fn attempts(client: &mut TcpStream, pair: usize, shared: &Shared) -> Result<(), String> {
    let deadline = Instant::now() + shared.patience;
    let mut endpoints = shared.endpoints.clone();
    let mut replay = Replay::default();
    let mut tried: Vec<Choice> = Vec::new();
    let mut repeats = 0;
    let mut pause = FIRST_PAUSE;
    let mut last = String::from("no pod is ready");
    loop {
        endpoints.mark_unchanged();
        let Some(choice) = shared.pick(pair, &tried) else {
            let until = if tried.is_empty() { deadline } else { deadline.min(Instant::now() + pause) };
            pause = (pause * 2).min(LONGEST_PAUSE);
            tried.clear();
            park(client, &mut replay, shared, &mut endpoints, until).await?;
            if Instant::now() >= deadline {
                return Err(last);
            }
            continue;
        };
        let name = choice.0.pod.clone().unwrap_or_else(|| choice.0.ip.to_string());
        let upstream = match shared.carriers.open(&choice).await {
            Ok(upstream) => upstream,
            Err(error) => {
                last = format!("{name}: {error}");
                tracing::info!(event = "dial-failed", pod = name, way = ?choice.1, error = %error);
                shun(shared, &choice, &error);
                again(shared, &mut tried, choice);
                continue;
            }
        };
        let seated = Seated::new(shared, &choice);
        let end = carry(client, upstream, &mut replay, shared).await;
        drop(seated);
        match end {
            End::Clean => {
                lock(&shared.balancer).worked(&choice.0, choice.1);
                return Ok(());
            }
            // The client left; that says nothing about the pod.
            End::ClientLeft => return Ok(()),
            End::NotDelivered(why) => {
                last = format!("{name}: {why}");
                tracing::info!(event = "dial-failed", pod = name, way = ?choice.1, error = why);
                shun(shared, &choice, &std::io::ErrorKind::ConnectionRefused.into());
                again(shared, &mut tried, choice);
            }
            End::Unanswered(why) if repeats < REPEATS => {
                repeats += 1;
                last = format!("{name}: {why}");
                tracing::info!(event = "repeated", pod = name, way = ?choice.1, error = why);
                again(shared, &mut tried, choice);
            }
            End::Unanswered(why) | End::Broken(why) => return Err(format!("{name}: {why}")),
        }
    }
}

fn again(shared: &Shared, tried: &mut Vec<Choice>, choice: Choice) {
    shared.stats.retried.fetch_add(1, Relaxed);
    tried.push(choice);
}

/// Remembers a failed dial: who refuses is tried again soon, who cannot be reached is left to the scout.
pub(super) fn shun(shared: &Shared, (endpoint, way): &Choice, error: &std::io::Error) {
    use std::io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    let now = shared.now();
    let mut balancer = lock(&shared.balancer);
    match error.kind() {
        TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown if *way == Way::Direct => {
            balancer.unreachable(endpoint, *way, now);
        }
        _ => balancer.failed(endpoint, *way, now),
    }
}

async fn carry(client: &mut TcpStream, mut upstream: Upstream, replay: &mut Replay, shared: &Shared) -> End {
    let (stats, closing) = (&shared.stats, &shared.closing);
    let end = match &mut upstream {
        Upstream::Direct(stream) => {
            let (reader, writer) = stream.split();
            relay(client, reader, writer, true, replay, stats, closing).await
        }
        Upstream::Tunnel(stream) => {
            let (reader, writer) = tokio::io::split(stream);
            relay(client, reader, writer, false, replay, stats, closing).await
        }
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
