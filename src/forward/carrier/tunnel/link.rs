//! One upgraded connection: streams inside it, whose bytes are taken from it by whoever of them is polled.
//!
//! Normally one stream at a time has it to itself, beside those that only wait for their ends. Where the number of
//! tunnels is at its limit several share one; then a stream whose client does not read keeps back the others' bytes
//! once its inbox is full.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::fan::Fan;
pub use super::mux::Standing;
use super::mux::{Entry, Left, Mux};
use super::wire::Wire;
use super::{spdy, websocket};

/// One frame's payload. With its head it fills four TLS records.
const PAYLOAD: usize = 64 * 1024 - spdy::HEAD;
/// Bytes for streams that were left, after which the connection is not used again: somebody still sends in earnest.
const LEFTOVERS: usize = 1024 * 1024;

/// A link as its streams and the pool hold it. The lock is never contended: one thread, and nobody waits inside.
pub type Shared = Arc<Mutex<Link>>;

/// The connection.
pub struct Link {
    wire: Wire,
    mux: Mux,
    opener: spdy::Opener,
    masks: Option<Masks>,
    next_stream: u32,
    next_ping: u32,
    /// Why it is of no use any more.
    broken: Option<(ErrorKind, String)>,
    /// Present once several streams shared it.
    fan: Option<Arc<Fan>>,
    /// Of the only stream, to wake it when another joins.
    alone: Option<Waker>,
    pub opened_at: Instant,
    /// When the last stream left it.
    pub idle_since: Instant,
    /// Streams so far.
    pub uses: u32,
    pub pinged_at: Instant,
    /// Its stream waits for an answer's bytes and everything of ours is sent: then a missing PONG means something.
    pub listening: bool,
    /// A stream left that may have got stuck on the way.
    pub doubtful: bool,
    /// When PINGs went out that no PONG followed yet, and the PONGs before.
    pub awaited: Option<(Instant, u32)>,
    _counted: Counted,
}

/// Counts a link as long as it lives.
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more.
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Masking keys: drawn from a seed of the operating system's (SplitMix64).
struct Masks(u64);

impl Masks {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 32) as u32
    }
}

impl Link {
    /// Over an upgraded connection; `websocket` where the SPDY bytes travel in WebSocket messages.
    pub fn new(wire: Wire, websocket: bool, counted: Counted) -> Self {
        let now = Instant::now();
        Self {
            wire,
            mux: Mux {
                websocket: websocket.then(websocket::Decoder::default),
                spdy: spdy::Decoder::default(),
                entries: Vec::new(),
                left: Vec::new(),
                leftovers: 0,
                pings: Vec::new(),
                websocket_pings: Vec::new(),
                pongs: 0,
                no_more: false,
                stalled: None,
                others: Vec::new(),
                crowded: false,
            },
            opener: spdy::Opener::default(),
            masks: websocket.then(|| Masks(RandomState::new().build_hasher().finish())),
            next_stream: 1,
            next_ping: 1,
            broken: None,
            fan: None,
            alone: None,
            opened_at: now,
            idle_since: now,
            uses: 0,
            pinged_at: now,
            listening: false,
            doubtful: false,
            awaited: None,
            _counted: counted,
        }
    }

    /// Whether a new stream may be opened on it.
    pub fn is_usable(&self) -> bool {
        self.broken.is_none() && !self.mux.no_more && self.mux.leftovers < LEFTOVERS && self.next_stream < 1 << 30
    }

    /// Whether it has ended.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Streams on it now that have not lent it on.
    pub fn streams(&self) -> usize {
        self.mux.entries.iter().filter(|entry| !entry.lent).count()
    }

    /// Streams that lent it on, and wait for their ends.
    pub fn lent(&self) -> usize {
        self.mux.entries.len() - self.streams()
    }

    /// From now on others may use it beside this stream.
    pub fn lend(&mut self, stream: u32) {
        self.share();
        if let Some(entry) = self.mux.entry(stream) {
            entry.lent = true;
        }
        self.unstall(stream);
    }

    /// Nobody shall use it any more. It breaks at once unless somebody still waits for an end.
    pub fn retire(&mut self, why: &str) {
        if self.mux.entries.is_empty() {
            self.give_up(why);
        } else {
            self.mux.no_more = true;
        }
    }

    /// Streams that were left and have not ended yet.
    pub fn left(&self) -> usize {
        self.mux.left.len()
    }

    /// Whether somebody on it does not read, here or in the pod.
    pub fn is_blocked(&self) -> bool {
        !self.wire.is_clear() || self.mux.stalled.is_some()
    }

    /// PONGs received.
    pub fn pongs(&self) -> u32 {
        self.mux.pongs
    }

    /// Whether bytes went to a pod that it has not answered since.
    pub fn owes_answer(&self) -> bool {
        self.mux.entries.iter().any(|entry| entry.unanswered)
    }

    /// Since when PINGs wait for a first PONG.
    pub fn unanswered_since(&mut self) -> Option<Instant> {
        self.awaited.take_if(|(_, before)| *before != self.mux.pongs);
        self.awaited.map(|(since, _)| since)
    }

    /// A stream of another connection is about to use it too.
    pub fn share(&mut self) {
        if self.fan.is_none() {
            self.fan = Some(Arc::new(Fan::default()));
            if let Some(waker) = self.alone.take() {
                waker.wake();
            }
        }
    }

    /// Opens a pair of streams; what that takes is sent together with the first `data`, of which the length taken is
    /// returned beside the data stream's number.
    ///
    /// # Errors
    /// Nothing was sent, or the connection broke.
    pub fn open(&mut self, cx: &mut Context<'_>, key: u64, port: u16, data: &[u8]) -> io::Result<(u32, usize)> {
        self.check()?;
        if !self.mux.entries.is_empty() {
            self.share();
        }
        let (error, stream) = (self.next_stream, self.next_stream + 2);
        self.next_stream += 4;
        let mut head = Vec::with_capacity(256);
        self.opener.pair(&mut head, error, stream, port, error / 4);
        self.mux.entries.push(Entry {
            key,
            lent: false,
            data: stream,
            error,
            replied: false,
            our_end: false,
            data_ended: false,
            error_ended: false,
            ours_first: false,
            reset: None,
            text: Vec::new(),
            inbox: Vec::new(),
            unanswered: !data.is_empty(),
            sent: !data.is_empty(),
        });
        self.uses += 1;
        let length = data.len().min(PAYLOAD - head.len());
        if length > 0 {
            head.extend_from_slice(&spdy::data_head(stream, length, false));
        }
        self.send(cx, key, &[IoSlice::new(&head), IoSlice::new(&data[..length])])?;
        Ok((stream, length))
    }

    /// Sends a frame of `data` once the one before it is gone.
    ///
    /// # Errors
    /// Of the connection; BrokenPipe where the stream takes no more.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, key: u64, stream: u32, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let Some(entry) = self.mux.entry(stream) else { return Poll::Ready(Err(ErrorKind::BrokenPipe.into())) };
        if entry.our_end || entry.reset.is_some() || entry.error_ended || !entry.text.is_empty() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_flush(cx, key))?;
        let length = data.len().min(PAYLOAD);
        if let Some(entry) = self.mux.entry(stream) {
            entry.unanswered = true;
            entry.sent = true;
        }
        let head = spdy::data_head(stream, length, false);
        self.send(cx, key, &[IoSlice::new(&head), IoSlice::new(&data[..length])])?;
        Poll::Ready(Ok(length))
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// Of the connection.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, key: u64) -> Poll<io::Result<()>> {
        if self.wire.is_clear() {
            return Poll::Ready(Ok(()));
        }
        let waker = self.register(cx, key);
        match ready!(self.wire.poll_flush(&mut Context::from_waker(&waker))) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.break_off(&error))),
        }
    }

    /// Ends the stream from our side; what the socket does not take at once wants a flush.
    ///
    /// # Errors
    /// Of the connection.
    pub fn finish(&mut self, stream: u32) -> io::Result<()> {
        self.check()?;
        let Some(entry) = self.mux.entry(stream).filter(|e| !e.our_end) else { return Ok(()) };
        entry.our_end = true;
        entry.ours_first = !entry.data_ended && !entry.error_ended && entry.reset.is_none() && entry.text.is_empty();
        let end = spdy::data_head(stream, 0, true);
        let waker = self.waker();
        self.frame(&mut Context::from_waker(&waker), &[IoSlice::new(&end)])
    }

    /// Reads for one stream; what belongs to others is put where they find it.
    ///
    /// # Errors
    /// Anything but a clean end of both streams of the pair: see [`said::on_error_stream`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        stream: u32,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        self.listening = false;
        self.take_inbox(stream, buffer);
        loop {
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(verdict) = self.mux.entry(stream).and_then(|entry| entry.verdict()) {
                return Poll::Ready(verdict);
            }
            if self.mux.entry(stream).is_none() {
                return Poll::Ready(Err(ErrorKind::NotConnected.into()));
            }
            if let Err(error) = self.check() {
                return Poll::Ready(Err(self.lost(stream, error)));
            }
            let waker = self.register(cx, key);
            match self.poll_feed(&mut Context::from_waker(&waker), stream, buffer) {
                Poll::Ready(Ok(())) if self.mux.stalled.is_some() => return Poll::Pending,
                Poll::Ready(Ok(())) if std::mem::take(&mut self.mux.crowded) && buffer.filled().len() == before => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()) | Err(_)) => {}
                Poll::Pending => {
                    self.listening = self.wire.is_clear();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes what arrives while no stream is on it, for the sake of PONGs and ends. Ready where it broke.
    ///
    /// # Errors
    /// Of the connection.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waker = self.register(cx, 0);
        self.poll_ends(&mut Context::from_waker(&waker))
    }

    /// The same once, without waiting for more.
    ///
    /// # Errors
    /// Of the connection.
    pub fn look(&mut self) -> io::Result<()> {
        let waker = self.waker();
        match self.poll_ends(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_ends(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.check()?;
            ready!(self.poll_feed(cx, 0, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Wakes who waits for the socket now.
    fn waker(&self) -> Waker {
        match (&self.fan, &self.alone) {
            (Some(fan), _) => Waker::from(fan.clone()),
            (None, Some(waker)) => waker.clone(),
            (None, None) => Waker::noop().clone(),
        }
    }

    /// Sends PINGs. What the socket does not take at once goes out with whatever comes next.
    ///
    /// # Errors
    /// Of the connection.
    pub fn ping(&mut self, count: u32) -> io::Result<()> {
        self.check()?;
        let mut frames = Vec::with_capacity(12 * count as usize);
        for _ in 0..count {
            frames.extend_from_slice(&spdy::ping(self.next_ping));
            self.next_ping = (self.next_ping + 2) & 0x7fff_ffff;
        }
        self.pinged_at = Instant::now();
        self.awaited.get_or_insert((self.pinged_at, self.mux.pongs));
        let waker = self.waker();
        self.frame(&mut Context::from_waker(&waker), &[IoSlice::new(&frames)])
    }

    /// How a stream stands.
    pub fn standing(&mut self, stream: u32) -> Standing {
        match self.mux.entry(stream) {
            Some(e) => e.standing(),
            None => Standing::Open,
        }
    }

    /// Takes a stream off; what still arrives for it is dropped. Returns its error stream's text.
    pub fn leave(&mut self, stream: u32) -> String {
        let Some(at) = self.mux.entries.iter().position(|e| e.data == stream) else { return String::new() };
        let entry = self.mux.entries.swap_remove(at);
        if entry.reset.is_none() {
            let open = u8::from(!entry.data_ended) + u8::from(!entry.error_ended);
            if open > 0 {
                self.mux.left.push(Left { data: entry.data, error: entry.error, open });
            }
        }
        self.unstall(stream);
        self.wire.rest();
        if let Some(fan) = &self.fan {
            fan.forget(entry.key);
            // It may have been the one that was woken for what lies in the socket.
            fan.wake_by_ref();
        }
        self.idle_since = Instant::now();
        self.listening = false;
        self.alone = None;
        String::from_utf8_lossy(&entry.text).into_owned()
    }

    /// It is of no use any more, for a reason of ours.
    pub fn give_up(&mut self, why: &str) {
        self.break_off(&io::Error::new(ErrorKind::ConnectionReset, why));
    }

    fn check(&self) -> io::Result<()> {
        match &self.broken {
            None => Ok(()),
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
        }
    }

    /// The loss of the tunnel as one of its streams sees it: where nothing of it was sent, nothing was delivered.
    fn lost(&mut self, stream: u32, error: io::Error) -> io::Error {
        match self.mux.entry(stream) {
            Some(entry) if !entry.replied && !entry.sent => io::Error::new(ErrorKind::ConnectionRefused, error),
            _ => error,
        }
    }

    fn break_off(&mut self, error: &io::Error) -> io::Error {
        let text = match error.kind() {
            ErrorKind::UnexpectedEof => "the tunnel was closed".to_owned(),
            _ => format!("the tunnel broke: {error}"),
        };
        self.broken.get_or_insert((ErrorKind::ConnectionReset, text.clone()));
        self.wake_others();
        if let Some(waker) = self.alone.take() {
            waker.wake();
        }
        io::Error::new(ErrorKind::ConnectionReset, text)
    }

    fn register(&mut self, cx: &Context<'_>, key: u64) -> Waker {
        match &self.fan {
            Some(fan) => {
                let lent = self.mux.entries.iter().any(|entry| entry.key == key && entry.lent);
                fan.register(key, lent, cx.waker());
                Waker::from(fan.clone())
            }
            None => {
                match &mut self.alone {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => self.alone = Some(cx.waker().clone()),
                }
                cx.waker().clone()
            }
        }
    }

    fn wake_others(&self) {
        if let Some(fan) = &self.fan {
            fan.wake_all();
        }
    }

    fn take_inbox(&mut self, stream: u32, buffer: &mut ReadBuf<'_>) {
        let Some(entry) = self.mux.entry(stream) else { return };
        if entry.inbox.is_empty() {
            return;
        }
        let count = entry.inbox.len().min(buffer.remaining());
        buffer.put_slice(&entry.inbox[..count]);
        entry.inbox.drain(..count);
        entry.unanswered = false;
        self.unstall(stream);
    }

    fn unstall(&mut self, stream: u32) {
        if self.mux.stalled == Some(stream) {
            self.mux.stalled = None;
            self.wake_others();
        }
    }

    fn poll_feed(&mut self, cx: &mut Context<'_>, stream: u32, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mux = &mut self.mux;
        let fed = self.wire.poll_feed(cx, |bytes| mux.digest(bytes, stream, buffer));
        for key in self.mux.others.drain(..) {
            if let Some(fan) = &self.fan {
                fan.wake_one(key);
            }
        }
        if !self.mux.pings.is_empty() || !self.mux.websocket_pings.is_empty() {
            self.answer_pings(cx)?;
        } else if !self.wire.is_clear()
            && let Poll::Ready(Err(error)) = self.wire.poll_flush(cx)
        {
            return Poll::Ready(Err(self.break_off(&error)));
        }
        match ready!(fed) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.break_off(&error))),
        }
    }

    fn answer_pings(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        for body in std::mem::take(&mut self.mux.websocket_pings) {
            let mut out = Vec::new();
            websocket::pong(&mut out, self.masks.as_mut().map_or(0, Masks::next), &body);
            self.wire.send(cx, &[IoSlice::new(&out)]).map_err(|e| self.break_off(&e))?;
        }
        for id in std::mem::take(&mut self.mux.pings) {
            self.frame(cx, &[IoSlice::new(&spdy::ping(id))])?;
        }
        Ok(())
    }

    fn send(&mut self, cx: &mut Context<'_>, key: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let waker = self.register(cx, key);
        self.frame(&mut Context::from_waker(&waker), parts)
    }

    fn frame(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let sent = match &mut self.masks {
            None => self.wire.send(cx, parts),
            Some(masks) => {
                let mut message = Vec::new();
                websocket::binary(&mut message, masks.next(), parts);
                self.wire.send(cx, &[IoSlice::new(&message)])
            }
        };
        sent.map_err(|error| self.break_off(&error))
    }
}
