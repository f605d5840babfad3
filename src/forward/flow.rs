//! One direction of a connection: what one end sends, the other gets.
//!
//! Bytes pass through a scratch buffer of the thread. Only what the sink did not take at once is kept here, so a silent
//! direction holds no memory. Between two sockets a direction that proved to be bulk goes by splice(2).

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use super::gather::{Gather, LARGE};
#[cfg(target_os = "linux")]
use super::splice::{self, Moved, Pipe};

/// Bytes read at a time: two frames of a tunnel. What is left over would cost a small third one.
const SCRATCH: usize = 128 * 1024 - 2 * 8;
/// Reads before other connections get their turn.
const ROUNDS: usize = 8;
/// After so many bytes in large reads, one after another, a direction is bulk. Well above what a session keeps for a
/// second attempt: spliced bytes are seen by nobody.
#[cfg(target_os = "linux")]
const BULK: usize = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// One side of a relay.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Whether the end of what is sent can be told while the answer is still to come, and closing is all it takes when
    /// both directions are at their end.
    const HALF_CLOSE: bool;

    /// The TCP socket it is, where it is nothing more than that.
    fn socket(&self) -> Option<&TcpStream>;

    /// Whether it still shows how its other end ended after ours did, where the two directions cannot end apart.
    fn tells_its_end(&self) -> bool {
        true
    }

    /// All that the client wanted is said, and only the end is awaited: what carries this connection may serve others
    /// beside it.
    fn release(&mut self) {}
}

impl Side for TcpStream {
    const HALF_CLOSE: bool = true;

    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Hears what passes.
pub trait Tap {
    /// These bytes were read.
    fn read(&mut self, bytes: &[u8]);
    /// So many of them were taken by the sink.
    fn delivered(&mut self, count: usize);
    /// The source said that nothing more comes.
    fn ended(&mut self);
    /// Whether bytes may pass unseen by `read`.
    fn may_splice(&self) -> bool;
}

/// Which side failed.
#[derive(Debug)]
pub enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

/// The state of one direction.
#[derive(Debug, Default)]
pub struct Flow {
    /// Read and not yet delivered, from `at` on.
    rest: Vec<u8>,
    at: usize,
    /// Nothing more comes from the source.
    ended: bool,
    /// The sink may still hold delivered bytes back.
    unflushed: bool,
    /// What comes is read and dropped: the sink is gone, the source not yet told.
    discards: bool,
    #[cfg(target_os = "linux")]
    bulk: Bulk,
    #[cfg(target_os = "linux")]
    gather: Gather,
}

#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
struct Bulk {
    /// Bytes of large reads in a row.
    streak: usize,
    is_on: bool,
    /// Splicing does not work here.
    is_off: bool,
    pipe: Option<Pipe>,
}

impl Flow {
    /// With bytes that were read before; `ended`: nothing comes after them.
    pub fn new(rest: Vec<u8>, ended: bool) -> Self {
        Self { rest, ended, ..Self::default() }
    }

    /// From now on what comes is dropped.
    pub fn discard(&mut self) {
        self.discards = true;
        self.rest = Vec::new();
        self.at = 0;
        #[cfg(target_os = "linux")]
        self.bulk.leave(true);
    }

    /// Moves what can be moved. Ready when the source has ended and the sink took everything.
    pub fn poll<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..ROUNDS {
            ready!(self.poll_rest(cx, sink, tap)).map_err(Broken::Sink)?;
            #[cfg(target_os = "linux")]
            if self.bulk.is_on && (!self.ended || self.bulk.pipe.is_some()) {
                ready!(self.poll_splice(cx, source, sink, tap))?;
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_copy(cx, source, sink, tap))?;
        }
        // Others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Delivers what an earlier read left.
    fn poll_rest<W: Side>(&mut self, cx: &mut Context<'_>, sink: &mut W, tap: &mut impl Tap) -> Poll<io::Result<()>> {
        while self.at < self.rest.len() {
            let count = ready!(Pin::new(&mut *sink).poll_write(cx, &self.rest[self.at..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
            self.unflushed = true;
            tap.delivered(count);
        }
        if self.at > 0 {
            self.rest = Vec::new();
            self.at = 0;
        }
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes it straight on.
    fn poll_copy<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), Broken>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = Pin::new(&mut *source).poll_read(cx, &mut buffer);
            #[cfg(target_os = "linux")]
            if let Some(socket) = source.socket() {
                match &read {
                    Poll::Pending => self.gather.wait(cx, socket),
                    Poll::Ready(_) => self.gather.took(socket, buffer.filled().len()),
                }
            }
            ready!(read).map_err(Broken::Source)?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.ended = true;
                tap.ended();
                return Poll::Ready(Ok(()));
            }
            if self.discards {
                return Poll::Ready(Ok(()));
            }
            tap.read(bytes);
            let mut done = 0;
            while done < bytes.len() {
                match Pin::new(&mut *sink).poll_write(cx, &bytes[done..]).map_err(Broken::Sink)? {
                    Poll::Ready(0) => return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into()))),
                    Poll::Ready(count) => {
                        done += count;
                        self.unflushed = true;
                        tap.delivered(count);
                    }
                    Poll::Pending => {
                        self.rest = bytes[done..].to_vec();
                        break;
                    }
                }
            }
            #[cfg(target_os = "linux")]
            if source.socket().is_some() && sink.socket().is_some() && !self.bulk.is_off {
                self.bulk.streak = if bytes.len() >= LARGE { self.bulk.streak + bytes.len() } else { 0 };
                self.bulk.is_on = self.bulk.streak >= BULK && tap.may_splice();
            }
            Poll::Ready(Ok(()))
        })
    }

    #[cfg(target_os = "linux")]
    fn poll_splice<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        source: &R,
        sink: &W,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), Broken>> {
        let bulk = &mut self.bulk;
        let (Some(source), Some(sink)) = (source.socket(), sink.socket()) else {
            bulk.leave(true);
            return Poll::Ready(Ok(()));
        };
        let pipe = match bulk.pipe.take().map_or_else(Pipe::take, Ok) {
            Ok(pipe) => bulk.pipe.insert(pipe),
            Err(_) => {
                bulk.leave(true);
                return Poll::Ready(Ok(()));
            }
        };
        let mut moved = 0;
        let turn = pipe.poll_move(cx, source, sink, |count| {
            moved += count;
            tap.delivered(count);
        });
        match turn {
            Ok(Moved::Turn) => Poll::Ready(Ok(())),
            Ok(Moved::Stuck) => Poll::Pending,
            Ok(Moved::Quiet) => {
                if moved > 0 {
                    self.gather.took(source, moved);
                }
                self.gather.wait(cx, source);
                if let Some(pipe) = bulk.pipe.take() {
                    pipe.give_back();
                }
                if moved < LARGE {
                    bulk.leave(false);
                }
                Poll::Pending
            }
            Ok(Moved::End) => {
                bulk.leave(false);
                self.ended = true;
                tap.ended();
                Poll::Ready(Ok(()))
            }
            // No socket of a kind that can be spliced.
            Err(splice::Broken::Source(error)) if error.kind() == io::ErrorKind::InvalidInput && pipe.is_empty() => {
                bulk.leave(true);
                Poll::Ready(Ok(()))
            }
            Err(splice::Broken::Source(error)) => Poll::Ready(Err(Broken::Source(error))),
            Err(splice::Broken::Sink(error)) => Poll::Ready(Err(Broken::Sink(error))),
        }
    }
}

#[cfg(target_os = "linux")]
impl Bulk {
    fn leave(&mut self, for_good: bool) {
        self.is_on = false;
        self.is_off |= for_good;
        self.streak = 0;
        if let Some(pipe) = self.pipe.take() {
            pipe.give_back();
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Bulk {
    fn drop(&mut self) {
        self.leave(true);
    }
}
