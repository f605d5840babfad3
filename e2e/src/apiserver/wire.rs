//! The way back to one client after its upgrade, raw or in WebSocket messages, and how it is broken on purpose.

use std::io::{Error, Result};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::faults::{Break, Faults};

/// A connection, with TLS or without.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection with what was read of it ahead.
pub type Io = BufReader<Box<dyn Duplex>>;

/// A second handle of a connection's socket, to break it whoever uses it.
pub struct Socket {
    handle: TcpStream,
    stalled: AtomicBool,
}

impl Socket {
    /// Of this connection.
    ///
    /// # Errors
    /// Where descriptors run out.
    pub fn of(stream: tokio::net::TcpStream) -> Result<(Arc<Self>, tokio::net::TcpStream)> {
        let stream = stream.into_std()?;
        let handle = stream.try_clone()?;
        let socket = Arc::new(Self { handle, stalled: AtomicBool::new(false) });
        Ok((socket, tokio::net::TcpStream::from_std(stream)?))
    }

    /// Breaks the connection; one that is broken already stays so.
    pub fn break_off(&self, how: Break) {
        match how {
            // What the kernel sends for a process that is killed: no closing alert of TLS, no Close of the WebSocket.
            Break::Fin => drop(self.handle.shutdown(Shutdown::Both)),
            Break::Reset => drop(rustix::net::connect_unspec(&self.handle)),
            Break::Stall => self.stalled.store(true, Relaxed),
        }
    }
}

enum Writer {
    Raw(WriteHalf<Io>),
    WebSocket(SplitSink<WebSocketStream<Io>, Message>),
}

/// What is sent to one client; many streams share it, and one that cannot go on stops all of them.
pub struct Wire {
    writer: Mutex<Writer>,
    socket: Arc<Socket>,
    faults: Arc<Faults>,
}

fn io(error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => Error::other(other),
    }
}

impl Wire {
    /// Sends the parts one by one, as the Go server writes them; the last is payload, on which a cut counts.
    ///
    /// # Errors
    /// Where the client is gone.
    pub async fn send(&self, head: &[&[u8]], payload: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock().await;
        let cut = self.faults.cut(payload.len());
        let payload = &payload[..cut.map_or(payload.len(), |(kept, _)| kept)];
        for part in head.iter().copied().chain([payload]).filter(|p| !p.is_empty()) {
            self.stop_if_stalled().await;
            match &mut *writer {
                Writer::Raw(raw) => raw.write_all(part).await?,
                Writer::WebSocket(socket) => socket.feed(Message::binary(part.to_vec())).await.map_err(io)?,
            }
        }
        match &mut *writer {
            Writer::Raw(raw) => raw.flush().await?,
            Writer::WebSocket(socket) => socket.flush().await.map_err(io)?,
        }
        if let Some((_, how)) = cut {
            self.socket.break_off(how);
            self.stop_if_stalled().await;
        }
        Ok(())
    }

    /// One message of the WebSocket, or the same bytes raw.
    ///
    /// # Errors
    /// Where the client is gone.
    pub async fn message(&self, bytes: &[u8]) -> Result<()> {
        self.send(&[], bytes).await
    }

    /// Ends the connection as a server does that has nothing more to say.
    ///
    /// # Errors
    /// Where the client is gone already.
    pub async fn close(&self) -> Result<()> {
        match &mut *self.writer.lock().await {
            Writer::Raw(raw) => raw.shutdown().await,
            Writer::WebSocket(socket) => {
                let normal = tungstenite::protocol::frame::coding::CloseCode::Normal;
                let close = tungstenite::protocol::CloseFrame { code: normal, reason: "".into() };
                socket.send(Message::Close(Some(close))).await.map_err(io)
            }
        }
    }

    async fn stop_if_stalled(&self) {
        if self.socket.stalled.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// Both ways of a connection upgraded to SPDY itself.
pub fn raw(io: Io, socket: &Arc<Socket>, faults: &Arc<Faults>) -> (Gated<ReadHalf<Io>>, Arc<Wire>) {
    let (reader, writer) = tokio::io::split(io);
    let wire = wire(Writer::Raw(writer), socket, faults);
    (Gated { inner: reader, socket: Arc::clone(socket) }, wire)
}

/// Both ways of a connection upgraded to WebSocket.
pub async fn websocket(io: Io, socket: &Arc<Socket>, faults: &Arc<Faults>) -> (Messages, Arc<Wire>) {
    let stream = WebSocketStream::from_raw_socket(io, tungstenite::protocol::Role::Server, None).await;
    let (sink, stream) = stream.split();
    let wire = wire(Writer::WebSocket(sink), socket, faults);
    (Messages { inner: stream, socket: Arc::clone(socket), rest: Vec::new() }, wire)
}

fn wire(writer: Writer, socket: &Arc<Socket>, faults: &Arc<Faults>) -> Arc<Wire> {
    Arc::new(Wire { writer: Mutex::new(writer), socket: Arc::clone(socket), faults: Arc::clone(faults) })
}

/// A reader that reads nothing any more once its socket is stalled.
pub struct Gated<R> {
    inner: R,
    socket: Arc<Socket>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Gated<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.socket.stalled.load(Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// The binary messages of a client: one by one, or as the stream of bytes that they are together.
pub struct Messages {
    inner: SplitStream<WebSocketStream<Io>>,
    socket: Arc<Socket>,
    rest: Vec<u8>,
}

impl Messages {
    /// The next message; none after the client's Close.
    ///
    /// # Errors
    /// Where the connection breaks or breaks the protocol.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>>> {
        loop {
            if self.socket.stalled.load(Relaxed) {
                return Poll::Pending;
            }
            let message = std::task::ready!(self.inner.poll_next_unpin(cx));
            return Poll::Ready(match message {
                Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes.to_vec())),
                Some(Ok(Message::Close(_))) | None => Ok(None),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(io(error)),
            });
        }
    }
}

impl AsyncRead for Messages {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.poll_next(cx))? {
                Some(bytes) => self.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Poll::Ready(Ok(()))
    }
}
