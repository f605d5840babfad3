//! Both directions of a connection between a client and a pod: keeps half-closes, remembers what was sent until
//! something came back, and judges how it ended.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::carrier::direct::keep_alive;
use super::flow::{Broken, Flow, Side, Tap};
use super::stats::Stats;

/// What a client sent is kept up to this size until the pod's first byte.
const REPLAY_LIMIT: usize = 64 * 1024;
/// After one side's end the other may be silent this long.
const LINGER: Duration = Duration::from_secs(60);
/// After a client's end, and after so long a silence of the pod, the pod is told (tunnel): its end, which follows within
/// 1 s of that, cuts off what is still to come.
const QUIET: Duration = Duration::from_millis(200);
/// A client that ended and waits is looked at this often: it may be gone altogether.
const LOOK: Duration = Duration::from_secs(1);
/// While the forward closes, a connection on which nothing followed an answer for so long is idle.
const IDLE: Duration = Duration::from_millis(500);
/// A connection that lives so long may outlive its pod's node, and is watched for that. Most never get there.
const SETTLED: Duration = Duration::from_secs(5);

/// How a relay ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides ended as they wished.
    Clean,
    /// The client broke off.
    ClientLeft,
    /// Neither side said a word.
    Silent,
    /// Nothing reached the application: any connection may be tried elsewhere.
    NotDelivered(String),
    /// The pod broke off without a byte of answer to a request that is safe to repeat (RFC 9110 §9.2.1).
    Unanswered(String),
    /// The pod broke off.
    Broken(String),
}

/// What the client sent so far, while it may have to be sent again.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    /// The client sent its FIN.
    ended: bool,
    /// More was sent than is kept, or an answer began: there is no going back.
    forgotten: bool,
}

impl Replay {
    /// Begins with what a client sent before anybody was asked.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// What is kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether more may be taken up before a pod is there.
    pub fn has_room(&self) -> bool {
        !self.ended && self.bytes.len() < REPLAY_LIMIT
    }

    /// Reads once from a client that waits. Cancel safe.
    pub async fn take_up(&mut self, client: &mut TcpStream) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match tokio::io::AsyncReadExt::read(client, &mut buffer).await? {
            0 => self.ended = true,
            n => self.bytes.extend_from_slice(&buffer[..n]),
        }
        Ok(())
    }

    fn record(&mut self, bytes: &[u8]) {
        if self.forgotten {
            return;
        }
        if self.bytes.len() + bytes.len() > REPLAY_LIMIT {
            self.forget();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn forget(&mut self) {
        if !self.forgotten {
            self.forgotten = true;
            self.bytes = Vec::new();
        }
    }

    /// One whole request without a body, of a method that changes nothing.
    pub fn is_safe_request(&self) -> bool {
        !self.forgotten
            && [&b"GET "[..], b"HEAD ", b"OPTIONS "].iter().any(|m| self.bytes.starts_with(m))
            && self.bytes.windows(4).position(|w| w == b"\r\n\r\n") == self.bytes.len().checked_sub(4)
    }
}

/// What both directions know of each other.
struct Progress<'a> {
    replay: &'a mut Replay,
    stats: &'a Stats,
    /// Bytes of the client that the pod's side took. Negative while what goes before them is not through.
    delivered: i64,
    answered: bool,
    /// The last bytes went to the client.
    last_down: bool,
    /// The client ended before an answer came: it still waits for one.
    ended_first: bool,
    /// Something moved since the clock was looked at.
    moved: bool,
    /// Something moved at all.
    began: bool,
}

struct Up<'a, 'b>(&'a mut Progress<'b>);
struct Down<'a, 'b>(&'a mut Progress<'b>);

impl Tap for Up<'_, '_> {
    fn read(&mut self, bytes: &[u8]) {
        self.0.replay.record(bytes);
        self.0.last_down = false;
    }

    fn delivered(&mut self, count: usize) {
        self.0.delivered = self.0.delivered.saturating_add_unsigned(count as u64);
        self.0.stats.sent.fetch_add(count as u64, Relaxed);
        self.0.touch(false);
    }

    fn ended(&mut self) {
        self.0.replay.ended = true;
        self.0.ended_first = !self.0.last_down;
    }

    fn may_splice(&self) -> bool {
        self.0.replay.forgotten
    }
}

impl Tap for Down<'_, '_> {
    fn read(&mut self, _: &[u8]) {
        self.0.answered = true;
        self.0.replay.forget();
        self.0.touch(true);
    }

    fn delivered(&mut self, count: usize) {
        self.0.stats.received.fetch_add(count as u64, Relaxed);
        self.0.touch(true);
    }

    fn ended(&mut self) {}

    fn may_splice(&self) -> bool {
        true
    }
}

impl Progress<'_> {
    fn touch(&mut self, down: bool) {
        self.last_down = down;
        self.moved = true;
        self.began = true;
    }

    /// How long the pod has to be silent after the client's end.
    fn quiet(&self) -> Duration {
        if self.last_down { QUIET } else { LINGER }
    }

    /// How a connection ended that the pod's side broke.
    fn judge(&self, error: &io::Error) -> End {
        let why = error.to_string();
        if self.answered || self.replay.forgotten {
            End::Broken(why)
        } else if self.delivered <= 0 || error.kind() == io::ErrorKind::ConnectionRefused {
            End::NotDelivered(why)
        } else if self.replay.is_safe_request() {
            End::Unanswered(why)
        } else {
            End::Broken(why)
        }
    }
}

/// What becomes of the client's direction.
enum Sending {
    On,
    /// The client ended and all it sent is delivered; the pod is not told yet.
    Ended,
    /// The pod was told, or need not be.
    Told,
    /// The pod takes no more. What it said before is worth waiting for: an answer that still lies in our socket (413 and
    /// close), or a tunnel's word that the port refused. A failure it stays: after a reset the kernel shows the reader a
    /// clean end.
    Failed(io::Error, Instant),
}

/// What bounds a relay.
pub struct Bounds<'a> {
    pub stats: &'a Stats,
    /// The forward closes: idle connections end.
    pub closing: &'a CancellationToken,
    /// Both sides may be silent so long before the first byte. None: for ever.
    pub first_byte: Option<Duration>,
    /// Called when nothing more comes from the client, and only the pod's end is awaited.
    pub ending: &'a (dyn Fn() + Sync),
}

/// Relays until both sides ended or one broke. `rest` is what was not yet sent of the replay and what goes before it;
/// `delivered` counts the client's bytes that were, negative where not even what goes before them was.
pub async fn relay<P: Side>(
    client: &mut TcpStream,
    pod: &mut P,
    replay: &mut Replay,
    rest: Vec<u8>,
    delivered: i64,
    bounds: &Bounds<'_>,
) -> End {
    let now = Instant::now();
    let ended = replay.ended;
    let mut relay = Relay {
        client,
        pod,
        up: Flow::new(rest, ended),
        down: Flow::default(),
        sending: Sending::On,
        received: None,
        progress: Progress {
            began: delivered > 0,
            replay,
            stats: bounds.stats,
            delivered,
            answered: false,
            last_down: false,
            ended_first: ended,
            moved: false,
        },
        bounds,
        began: now,
        touched: now,
        is_closing: false,
        is_settled: false,
        timer: None,
    };
    let mut closing = pin!(bounds.closing.cancelled());
    std::future::poll_fn(|cx| {
        if !relay.is_closing && closing.as_mut().poll(cx).is_ready() {
            relay.is_closing = true;
        }
        relay.poll(cx)
    })
    .await
}

struct Relay<'a, P> {
    client: &'a mut TcpStream,
    pod: &'a mut P,
    up: Flow,
    down: Flow,
    sending: Sending,
    /// Since when the pod's end is known, and the client told.
    received: Option<Instant>,
    progress: Progress<'a>,
    bounds: &'a Bounds<'a>,
    began: Instant,
    /// When something moved last.
    touched: Instant,
    is_closing: bool,
    is_settled: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<P: Side> Relay<'_, P> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some(end) = self.poll_up(cx) {
                return Poll::Ready(end);
            }
            if let Some(end) = self.poll_down(cx) {
                return Poll::Ready(end);
            }
            if matches!(self.sending, Sending::Told) && self.received.is_some() {
                return Poll::Ready(End::Clean);
            }
            let now = Instant::now();
            if std::mem::take(&mut self.progress.moved) {
                self.touched = now;
            }
            let next = match self.time(cx, now) {
                Ok(next) => next,
                Err(end) => return Poll::Ready(end),
            };
            let Some(next) = next else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if timer.deadline() > next {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if matches!(self.sending, Sending::On) {
            match self.up.poll(cx, self.client, self.pod, &mut Up(&mut self.progress)) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.sending = Sending::Ended;
                    if !self.progress.ended_first {
                        self.pod.release();
                    }
                }
                Poll::Ready(Err(Broken::Source(_))) => return Some(End::ClientLeft),
                Poll::Ready(Err(Broken::Sink(error))) => return self.pod_is_deaf(cx, error),
            }
        }
        if matches!(self.sending, Sending::Ended) && P::HALF_CLOSE {
            if self.received.is_some() {
                self.sending = Sending::Told;
            } else {
                match Pin::new(&mut *self.pod).poll_shutdown(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => self.sending = Sending::Told,
                    Poll::Ready(Err(error)) => return self.pod_is_deaf(cx, error),
                }
            }
        }
        None
    }

    fn pod_is_deaf(&mut self, cx: &Context<'_>, error: io::Error) -> Option<End> {
        if self.received.is_some() {
            // It said all it had to say. The client gets the chance to read it: closing while its bytes lie unread
            // would reset the connection.
            self.up.discard();
            cx.waker().wake_by_ref();
        } else {
            self.sending = Sending::Failed(error, Instant::now());
        }
        None
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if self.received.is_some() {
            return None;
        }
        match self.down.poll(cx, self.pod, self.client, &mut Down(&mut self.progress)) {
            Poll::Pending => return None,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Broken::Source(error))) => return Some(self.progress.judge(&error)),
            Poll::Ready(Err(Broken::Sink(_))) => return Some(End::ClientLeft),
        }
        if let Sending::Failed(error, _) = &self.sending {
            return Some(self.progress.judge(error));
        }
        if !self.progress.answered && self.progress.replay.is_safe_request() {
            let empty = io::Error::new(io::ErrorKind::ConnectionReset, "closed without an answer");
            return Some(self.progress.judge(&empty));
        }
        if !(P::HALF_CLOSE && matches!(self.sending, Sending::Told)) {
            // The client may be gone already; its own end is no failure of ours.
            match Pin::new(&mut *self.client).poll_shutdown(cx) {
                Poll::Pending => return None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Some(End::ClientLeft),
            }
        }
        self.received = Some(Instant::now());
        None
    }

    /// Everything that has a time: how it ends now, or when to look again.
    fn time(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Option<Instant>, End> {
        let mut next: Option<Instant> = None;
        let mut at = |time: Instant| next = Some(next.map_or(time, |n| n.min(time)));
        if let Some(since) = self.received {
            // What the client still sends may find no reader.
            if now >= since + LINGER {
                return Err(End::Clean);
            }
            at(since + LINGER);
        }
        match &self.sending {
            Sending::Failed(error, since) => {
                if now >= *since + LINGER {
                    return Err(self.progress.judge(error));
                }
                at(*since + LINGER);
            }
            Sending::Ended if !P::HALF_CLOSE && !self.pod.tells_its_end() && self.received.is_none() => {
                // Ours would be the last that is heard of the pod: it waits for the pod's own.
                if matches!(self.client.take_error(), Err(_) | Ok(Some(_))) {
                    return Err(End::ClientLeft);
                }
                let (quiet, until) = (self.touched + self.progress.quiet(), self.touched + LINGER);
                if now >= until {
                    return Err(End::Broken("the pod's end did not come".to_owned()));
                }
                if now >= quiet {
                    (self.bounds.ending)();
                } else {
                    at(quiet);
                }
                at(until.min(now + LOOK));
            }
            Sending::Ended if !P::HALF_CLOSE => {
                // A tunnel's end ends both directions at the far side: the answer comes first.
                let until = self.touched + self.progress.quiet();
                if now < until && self.received.is_none() {
                    at(until);
                } else {
                    self.pod.release();
                    match Pin::new(&mut *self.pod).poll_shutdown(cx) {
                        Poll::Pending => at(now + QUIET),
                        Poll::Ready(Err(error)) if self.received.is_none() => return Err(self.progress.judge(&error)),
                        Poll::Ready(_) => {
                            self.sending = Sending::Told;
                            self.touched = now;
                            (self.bounds.ending)();
                            at(now);
                        }
                    }
                }
            }
            Sending::Told if !P::HALF_CLOSE && self.received.is_none() => {
                // Silence proves nothing: the client gets no clean end before the pod's own is known.
                if now >= self.touched + LINGER {
                    return Err(End::Broken("the pod's end did not come".to_owned()));
                }
                // Another connection in the same tunnel may be slow to pass on what is there for this one.
                at(now + QUIET);
            }
            _ => {}
        }
        let waits = matches!(self.sending, Sending::On);
        if self.is_closing && waits && self.progress.answered && self.progress.last_down {
            // A browser keeps such a connection for its next request, and opens another one without a word.
            if now >= self.touched + IDLE {
                return Err(End::Clean);
            }
            at(self.touched + IDLE);
        }
        if let (false, Some(limit)) = (self.progress.began, self.bounds.first_byte) {
            if now >= self.began + limit {
                return Err(End::Silent);
            }
            at(self.began + limit);
        }
        if let (false, Some(socket)) = (self.is_settled, self.pod.socket()) {
            if now >= self.began + SETTLED {
                keep_alive(socket);
                self.is_settled = true;
            } else {
                at(self.began + SETTLED);
            }
        }
        Ok(next)
    }
}
