//! One connection to a pod's port inside a leased tunnel.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::channel;
use super::pool::Lease;
use crate::forward::flow::Side;
use crate::forward::stats::lock;

/// A connection to a pod's port. End of stream is told only where both streams of the pair ended without an error.
pub struct Stream(Inside);

enum Inside {
    Leased(Leased),
    Channel(channel::Stream),
}

struct Leased {
    lease: Lease,
    /// Tells apart who waits where several streams share a tunnel.
    key: u64,
    port: u16,
    state: State,
}

enum State {
    /// Nothing was sent. The first read waits one turn, so that what the client has sent already goes along.
    Fresh { waited: bool },
    /// The data stream's number.
    Open(u32),
    /// The tunnel broke before anything of this connection went out.
    Failed(String),
}

static KEYS: AtomicU64 = AtomicU64::new(1);

impl Stream {
    /// Over a tunnel; what opens the stream is sent with the first bytes.
    pub(super) fn leased(lease: Lease, port: u16) -> Self {
        let key = KEYS.fetch_add(1, Relaxed);
        Self(Inside::Leased(Leased { lease, key, port, state: State::Fresh { waited: false } }))
    }

    /// Over a connection of its own.
    pub(super) fn channel(stream: channel::Stream) -> Self {
        Self(Inside::Channel(stream))
    }

    /// Breaks it off: the tunnel is closed with it.
    pub fn abort(self) {
        match self.0 {
            Inside::Leased(leased) => leased.lease.abort(),
            Inside::Channel(stream) => stream.abort(),
        }
    }
}

impl Leased {
    /// Opens the stream where it is not; returns how much of `data` went with that.
    fn open(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<usize> {
        let opened = lock(self.lease.link()).open(cx, self.key, self.port, data);
        match opened {
            Ok((stream, taken)) => {
                self.state = State::Open(stream);
                self.lease.opened(stream);
                Ok(taken)
            }
            Err(error) => {
                let text = error.to_string();
                self.state = State::Failed(text.clone());
                Err(Error::new(ErrorKind::ConnectionRefused, text))
            }
        }
    }

    /// The data stream's number.
    fn stream(&mut self, cx: &mut Context<'_>) -> Result<u32> {
        match &self.state {
            State::Open(stream) => Ok(*stream),
            State::Failed(text) => Err(Error::new(ErrorKind::ConnectionRefused, text.clone())),
            State::Fresh { .. } => {
                self.open(cx, &[])?;
                self.stream(cx)
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if let State::Fresh { waited: waited @ false } = &mut self.state {
            *waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let stream = self.stream(cx)?;
        lock(self.lease.link()).poll_read(cx, self.key, stream, buffer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        if let State::Fresh { .. } = self.state {
            return Poll::Ready(self.open(cx, data));
        }
        let stream = self.stream(cx)?;
        lock(self.lease.link()).poll_write(cx, self.key, stream, data)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        lock(self.lease.link()).poll_flush(cx, self.key)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let stream = self.stream(cx)?;
        let lent = self.lease.is_lent();
        let mut link = lock(self.lease.link());
        link.finish(stream)?;
        // In a tunnel that others use too, it goes out with what they send or read.
        if lent { Poll::Ready(Ok(())) } else { link.poll_flush(cx, self.key) }
    }
}

impl Side for Stream {
    const HALF_CLOSE: bool = false;

    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn tells_its_end(&self) -> bool {
        matches!(self.0, Inside::Leased(_))
    }

    fn release(&mut self) {
        if let Inside::Leased(leased) = &mut self.0 {
            leased.lease.lend();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            Inside::Leased(leased) => leased.poll_read(cx, buffer),
            Inside::Channel(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        match &mut self.0 {
            Inside::Leased(leased) => {
                let count = ready!(leased.poll_write(cx, data))?;
                Poll::Ready(Ok(count))
            }
            Inside::Channel(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            Inside::Leased(leased) => leased.poll_flush(cx),
            Inside::Channel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            Inside::Leased(leased) => leased.poll_shutdown(cx),
            Inside::Channel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
