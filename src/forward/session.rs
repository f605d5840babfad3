//! One connection from its accept to its end: pick, dial, relay; park while no pod is there; try another pod while
//! nothing came back yet. A failure ends by RST, never as the clean end of a truncated answer.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::affinity::Home;
use super::balancer::{Balancer, Choice, Way};
use super::carrier::Upstream;
use super::doors::{Doors, Terms};
use super::endpoints::{Endpoint, Routes};
use super::front::{Family, Led};
use super::relay::{Bounds, End, Replay, relay};
use super::stats::{self, Abort, Lowered, Raised, Stats, lock};
use super::watch::Endpoints;
use super::worker::Worker;
use super::{proxy_protocol, wait_page};

/// What the sessions of one forward share, over all data threads.
pub struct Shared {
    pub endpoints: watch::Receiver<Endpoints>,
    /// The ways allowed, best first.
    pub ways: Vec<Way>,
    pub balancer: Mutex<Balancer>,
    pub stats: Stats,
    pub began: Instant,
    /// No new connection is taken, and those that lie idle between two requests end.
    pub closing: CancellationToken,
    pub doors: Doors,
    /// Says whether clients stay with their pods.
    routes: watch::Receiver<Routes>,
    /// Where the rules lead clients that do.
    pub led: watch::Sender<Led>,
    dice: AtomicU64,
}

/// A browser that waits longer than this is shown a page.
const PAGE_AFTER: Duration = Duration::from_secs(2);
/// So long a browser may take to read that page.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);
/// A request that may be repeated is repeated on so many pods.
const REPEATS: usize = 3;
/// Between two rounds over endpoints that all fail.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Connections that this process accepted so far, over all its forwards.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

/// The number by which the log knows a new connection: each line about it has the same.
pub(super) fn number() -> u64 {
    ACCEPTED.fetch_add(1, Relaxed) + 1
}

impl Shared {
    /// For one forward.
    pub fn new(
        endpoints: watch::Receiver<Endpoints>,
        routes: watch::Receiver<Routes>,
        ways: Vec<Way>,
        terms: Terms,
    ) -> Self {
        Self {
            endpoints,
            ways,
            balancer: Mutex::default(),
            stats: Stats::default(),
            began: Instant::now(),
            closing: CancellationToken::new(),
            doors: Doors::new(terms),
            routes,
            led: watch::channel(Led::default()).0,
            dice: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Milliseconds since the forward began, the balancer's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Picks an endpoint and takes a seat there.
    fn pick(&self, (client, connection): (IpAddr, u64), pair: usize, tried: &[Choice]) -> Option<Seat<'_>> {
        // Weyl sequence through a finaliser (SplitMix64): spread is all that is asked of these dice.
        let mut dice = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        dice = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        dice ^= dice >> 27;
        let set = self.endpoints.borrow().pair(pair);
        let now = self.now();
        let home = self.home(client, pair);
        let mut balancer = lock(&self.balancer);
        let choice = match home {
            Some(home) => balancer.pick_nearest(&set, &self.ways, tried, now, |e| home.nearness(e)),
            None => balancer.pick(&set, &self.ways, tried, now, dice),
        }?;
        balancer.opened(choice.endpoint());
        let (result, began) = (stats::Result::Aborted, Instant::now());
        Some(Seat { shared: self, choice, connection, worked: false, result, began })
    }

    /// Where a client belongs, if it belongs anywhere.
    fn home(&self, client: IpAddr, pair: usize) -> Option<Home> {
        let routes = self.routes.borrow();
        let led = self.led.borrow();
        routes.by_client.then(|| Home::of(client, &routes, pair, led.get(&(Family::of(client), pair))))
    }
}

/// A connection in the balancer's books, from its dial on.
struct Seat<'a> {
    shared: &'a Shared,
    choice: Choice,
    /// The client's, as the log names it.
    connection: u64,
    worked: bool,
    result: stats::Result,
    began: Instant,
}

impl Seat<'_> {
    fn name(&self) -> String {
        let endpoint = self.choice.endpoint();
        endpoint.pod.clone().unwrap_or_else(|| endpoint.ip.to_string())
    }

    /// It failed, and another one is tried.
    fn give_up(mut self, event: &str, error: &str, tried: &mut Vec<Choice>) {
        let connection = self.connection;
        tracing::info!(event, connection, pod = self.name(), way = ?self.choice.way, error);
        self.shared.stats.retried.fetch_add(1, Relaxed);
        self.result = stats::Result::Retried;
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
        drop(balancer);
        self.shared.stats.ended(self.choice.endpoint(), self.result);
    }
}

/// A client's connection. Dropped without [`Client::end`], as when the forward breaks off, it ends by RST.
pub struct Client {
    stream: TcpStream,
    peer: IpAddr,
    number: u64,
    worker: Arc<Worker>,
    /// None: not over yet.
    ended: Option<Result<(), String>>,
    /// Its place among its client's connections is free again.
    left: AtomicBool,
}

impl Client {
    /// Of a connection that its door let in.
    pub fn new(stream: TcpStream, peer: IpAddr, number: u64, worker: Arc<Worker>) -> Self {
        worker.shared.stats.undialled.fetch_add(1, Relaxed);
        Self { stream, peer, number, worker, ended: None, left: AtomicBool::new(false) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        if let Err(why) = self.ended.take().unwrap_or_else(|| Err(shared.stats.abort(Abort::Ended, "the forward ends")))
        {
            tracing::warn!(event = "aborted", connection = self.number, reason = %why);
            shared.stats.failed.fetch_add(1, Relaxed);
            shared.stats.failure(why);
            drop(self.stream.set_zero_linger());
        }
        if !self.left.load(Relaxed) {
            shared.doors.leave(self.peer);
        }
        shared.stats.undialled.fetch_sub(1, Relaxed);
        shared.stats.live.fetch_sub(1, Relaxed);
    }
}

/// Serves one connection to the end. `replay` is what the client sent before it was accepted.
pub async fn serve(mut client: Client, pair: usize, mut replay: Replay) {
    let worker = client.worker.clone();
    let (peer, number) = (client.peer, client.number);
    // A client that comes and goes leaves many behind that wait for their pods' ends, for a second or so each.
    let (left, doors) = (&client.left, &worker.shared.doors);
    let ending = || {
        if !left.swap(true, Relaxed) {
            doors.leave(peer);
        }
    };
    let over = attempts(&mut client.stream, (peer, number), pair, &mut replay, &worker, &ending).await;
    client.ended = Some(over);
}

async fn attempts(
    client: &mut TcpStream,
    (peer, number): (IpAddr, u64),
    pair: usize,
    replay: &mut Replay,
    worker: &Worker,
    ending: &(dyn Fn() + Sync),
) -> Result<(), String> {
    let shared = &*worker.shared;
    let terms = &shared.doors.terms;
    let header = if terms.proxy_protocol {
        introduce(client).map_err(|why| shared.stats.abort(Abort::Other, why))?
    } else {
        Vec::new()
    };
    let began = Instant::now();
    let deadline = began + Duration::from_secs(terms.limits.patience_seconds);
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
        let Some(mut seat) = shared.pick((peer, number), pair, &tried) else {
            let Some(endpoints) = &mut endpoints else {
                endpoints = Some(shared.endpoints.clone());
                continue;
            };
            // All failed: those that refuse may be starting. None there: wait for one.
            let until = if tried.is_empty() { deadline } else { deadline.min(Instant::now() + pause) };
            pause = (pause * 2).min(LONGEST_PAUSE);
            tried.clear();
            if park(client, replay, shared, terms, endpoints, began + PAGE_AFTER, until).await? == Parked::Reader {
                return show(client, terms, shared).await;
            }
            if Instant::now() >= deadline {
                return Err(shared.stats.abort(Abort::NoPod, last));
            }
            continue;
        };
        let first =
            if header.is_empty() { Cow::Borrowed(replay.bytes()) } else { [&header, replay.bytes()].concat().into() };
        let (upstream, sent) = match worker.carriers.open(&seat.choice, &first).await {
            Ok(open) => open,
            Err(error) => {
                last = format!("{}: {error}", seat.name());
                if !is_our_want(&error) {
                    shun(shared, seat.choice.endpoint(), seat.choice.way, &error);
                }
                seat.give_up("dial-failed", &error.to_string(), &mut tried);
                continue;
            }
        };
        shared.stats.opened(seat.choice.way);
        shared.stats.opened_after(seat.began.elapsed());
        let rest = first[sent..].to_vec();
        let delivered = sent.cast_signed() as i64 - header.len().cast_signed() as i64;
        match carry(client, upstream, replay, rest, delivered, worker, (terms, ending)).await {
            End::Clean => {
                seat.worked = true;
                seat.result = stats::Result::Served;
                return Ok(());
            }
            // The client left; that says nothing about the pod.
            End::ClientLeft => {
                seat.result = stats::Result::Left;
                return Ok(());
            }
            End::Silent => return Err(shared.stats.abort(Abort::Silent, "no byte from either side")),
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
            End::Unanswered(why) | End::Broken(why) => {
                return Err(shared.stats.abort(Abort::Broken, format!("{}: {why}", seat.name())));
            }
        }
    }
}

/// The PROXY protocol header of a connection.
fn introduce(client: &TcpStream) -> Result<Vec<u8>, String> {
    let both = || Ok((client.peer_addr()?, client.local_addr()?));
    let (peer, local): (SocketAddr, SocketAddr) = both().map_err(|e: std::io::Error| e.to_string())?;
    Ok(proxy_protocol::header(peer, local))
}

/// Whether a dial failed for want of something on this side: descriptors, memory, ports. That says nothing about the
/// pod.
fn is_our_want(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let wants = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        Errno::from_io_error(error).is_some_and(|errno| wants.contains(&errno))
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
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
    rest: Vec<u8>,
    delivered: i64,
    worker: &Worker,
    (terms, ending): (&Terms, &(dyn Fn() + Sync)),
) -> End {
    let stats = &worker.shared.stats;
    let _dialled = Lowered::new(&stats.undialled);
    stats.sent.fetch_add(delivered.max(0).cast_unsigned(), Relaxed);
    let seconds = terms.limits.first_byte_seconds;
    let first_byte = (seconds > 0).then(|| Duration::from_secs(seconds));
    let bounds = Bounds { stats, closing: &worker.closing, first_byte, ending };
    let end = match &mut upstream {
        Upstream::Direct(direct) => relay(client, direct, replay, rest, delivered, &bounds).await,
        Upstream::Tunnel(stream) => relay(client, &mut **stream, replay, rest, delivered, &bounds).await,
    };
    if !matches!(end, End::Clean) {
        upstream.abort();
    }
    end
}

/// How waiting for a pod ended.
#[derive(PartialEq, Eq)]
enum Parked {
    /// The endpoints changed, or the time is over.
    Enough,
    /// A browser has waited long enough to be told.
    Reader,
}

/// Waits for a change of the endpoints or for `until`, and takes up what the client sends meanwhile.
async fn park(
    client: &mut TcpStream,
    replay: &mut Replay,
    shared: &Shared,
    terms: &Terms,
    endpoints: &mut watch::Receiver<Endpoints>,
    page_at: Instant,
    until: Instant,
) -> Result<Parked, String> {
    let parked = Raised::new(&shared.stats.parked);
    if parked.before() >= terms.limits.parked as u64 {
        return Err(shared.stats.abort(Abort::Crowded, "too many connections wait for a pod"));
    }
    loop {
        let page_is_due = terms.wait_page.is_some() && Instant::now() >= page_at;
        if page_is_due && wait_page::is_wanted(replay.bytes()) {
            return Ok(Parked::Reader);
        }
        tokio::select! {
            changed = timeout_at(until, endpoints.changed()) => {
                // The sender is gone only when the forward ends; then the deadline is what is left to wait for.
                if matches!(changed, Ok(Err(_))) {
                    return Err(shared.stats.abort(Abort::Ended, "the forward ends"));
                }
                return Ok(Parked::Enough);
            }
            taken = replay.take_up(client), if replay.has_room() => {
                taken.map_err(|error| shared.stats.abort(Abort::Left, format!("the client left: {error}")))?;
            }
            () = sleep_until(page_at), if terms.wait_page.is_some() && !page_is_due => {}
        }
    }
}

/// Shows a browser that no pod is ready.
async fn show(client: &mut TcpStream, terms: &Terms, shared: &Shared) -> Result<(), String> {
    shared.stats.pages.fetch_add(1, Relaxed);
    let page = terms.wait_page.as_deref().unwrap_or_default();
    let shown = async {
        client.write_all(page).await?;
        client.shutdown().await?;
        // Closed while something lies unread, the connection would be reset and the page lost.
        tokio::io::copy(client, &mut tokio::io::sink()).await
    };
    // A browser that left, or keeps the connection, has lost nothing.
    drop(timeout(PAGE_PATIENCE, shown).await);
    Ok(())
}

#[cfg(test)]
mod tests;
