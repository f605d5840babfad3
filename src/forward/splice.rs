//! Bytes from socket to socket without passing through this process: splice(2) by way of a pipe (Linux).
//!
//! Pipes are made once and lent out: each data thread keeps a few empty ones.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds, in bytes: as much as an unprivileged process may ask for (fs.pipe-max-size).
const CAPACITY: usize = 1024 * 1024;
/// Taken where the user's share of pipe memory is used up (fs.pipe-user-pages-soft).
const SMALL_CAPACITY: usize = 256 * 1024;
/// Empty pipes that a thread keeps.
const POOLED: usize = 32;
/// Bytes moved before other connections get their turn.
const TURN: usize = 4 * 1024 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe between two sockets.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
    /// Bytes inside.
    held: usize,
}

/// What became of a turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    /// The source ended, and all it sent is delivered.
    End,
    /// The source is silent for now and the pipe is empty.
    Quiet,
    /// The sink takes no more for now.
    Stuck,
    /// There is more to move.
    Turn,
}

/// Which socket failed.
#[derive(Debug)]
pub enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

impl Pipe {
    /// An empty one: a kept one, or a new one.
    pub fn take() -> io::Result<Self> {
        if let Some(kept) = POOL.with_borrow_mut(Vec::pop) {
            return Ok(kept);
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity =
            fcntl_setpipe_size(&writer, CAPACITY).or_else(|_| fcntl_setpipe_size(&writer, SMALL_CAPACITY))?;
        Ok(Self { reader, writer, capacity, held: 0 })
    }

    /// Gives it back. One that still holds bytes is closed.
    pub fn give_back(self) {
        if self.held > 0 {
            return;
        }
        // Where the thread is about to end there is no pool any more, and nothing to keep.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < POOLED {
                pool.push(self);
            }
        });
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves what there is; `count` hears of each piece delivered. Where the answer is not [`Moved::Turn`] or an end,
    /// the task is woken when there is more to do.
    pub fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        mut count: impl FnMut(usize),
    ) -> Result<Moved, Broken> {
        let mut moved = 0;
        loop {
            if self.held > 0 {
                match self.poll_drain(cx, sink) {
                    Poll::Pending => return Ok(Moved::Stuck),
                    Poll::Ready(Ok(n)) => {
                        count(n);
                        moved += n;
                    }
                    Poll::Ready(Err(error)) => return Err(Broken::Sink(error)),
                }
            } else if moved >= TURN {
                return Ok(Moved::Turn);
            } else {
                match self.poll_fill(cx, source) {
                    Poll::Pending => return Ok(Moved::Quiet),
                    Poll::Ready(Ok(0)) => return Ok(Moved::End),
                    Poll::Ready(Ok(n)) => self.held = n,
                    Poll::Ready(Err(error)) => return Err(Broken::Source(error)),
                }
            }
        }
    }

    fn poll_fill(&self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(source.poll_read_ready(cx))?;
            let fill = || {
                splice(source, None, &self.writer, None, self.capacity, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
                    .map_err(io::Error::from)
            };
            match source.try_io(Interest::READABLE, fill) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, sink: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(sink.poll_write_ready(cx))?;
            let drain = || {
                splice(&self.reader, None, sink, None, self.held, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
                    .map_err(io::Error::from)
            };
            match sink.try_io(Interest::WRITABLE, drain) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.held -= n;
                    return Poll::Ready(Ok(n));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }
}
