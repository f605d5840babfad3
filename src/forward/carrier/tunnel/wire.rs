//! The upgraded connection's socket: TLS by hand over it, whole reads in, one write for each frame out.
//!
//! tokio-rustls reads 4 KiB at a time from the socket; here rustls is fed from one large read.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use crate::forward::gather::Gather;

/// One read from a socket takes up to so much.
const SCRATCH: usize = 128 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

enum Socket {
    Tcp(TcpStream),
    /// Of a type not known here (a proxy spoken to by TLS): its bytes are plain, whatever lies below.
    Upgraded(TokioIo<Upgraded>),
}

/// The connection below the frames.
pub struct Wire {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    /// Plain bytes that arrived with the answer to the upgrade.
    early: Vec<u8>,
    /// What was read and not taken yet, still as the socket gave it, from `at` on.
    raw: Vec<u8>,
    at: usize,
    /// What the socket did not take yet, from `sent` on; with TLS rustls keeps it.
    out: Vec<u8>,
    sent: usize,
    #[cfg(target_os = "linux")]
    gather: Gather,
}

impl Wire {
    /// Takes the connection apart as far as its type is known. It is served by the runtime that calls this.
    ///
    /// # Errors
    /// Of the runtime taking the socket over.
    pub fn new(upgraded: Upgraded) -> io::Result<Self> {
        type Plain = TokioIo<TcpStream>;
        let (socket, tls, early) = match upgraded.downcast::<MaybeHttpsStream<Plain>>() {
            Ok(parts) => match parts.io {
                MaybeHttpsStream::Http(tcp) => (Socket::Tcp(adopt(tcp.into_inner())?), None, parts.read_buf),
                MaybeHttpsStream::Https(tls) => {
                    let (tcp, mut tls) = tls.into_inner().into_inner();
                    // What may be queued is bounded by our own frames.
                    tls.set_buffer_limit(None);
                    let tcp = adopt(tcp.into_inner().into_inner())?;
                    (Socket::Tcp(tcp), Some(Box::new(tls)), parts.read_buf)
                }
            },
            Err(upgraded) => (Socket::Upgraded(TokioIo::new(upgraded)), None, Default::default()),
        };
        Ok(Self { tls, early: early.to_vec(), ..Self::plain(socket) })
    }

    fn plain(socket: Socket) -> Self {
        Self {
            socket,
            tls: None,
            early: Vec::new(),
            raw: Vec::new(),
            at: 0,
            out: Vec::new(),
            sent: 0,
            #[cfg(target_os = "linux")]
            gather: Gather::default(),
        }
    }

    /// Over a bare socket.
    #[cfg(test)]
    pub fn bare(tcp: TcpStream) -> Self {
        Self::plain(Socket::Tcp(tcp))
    }

    /// Offers what arrived to `sink`, which says how much it took; less than all means it wants no more now. Reads from
    /// the socket where nothing is there.
    ///
    /// # Errors
    /// Of the socket, of TLS, of `sink`; its end is an [`io::ErrorKind::UnexpectedEof`].
    pub fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let used = sink(&self.early)?;
            self.early.drain(..used);
            return Poll::Ready(Ok(()));
        }
        let mut offered = false;
        if let Some(tls) = &mut self.tls {
            let drained = drain(tls, &mut sink)?;
            if drained.full {
                return Poll::Ready(Ok(()));
            }
            offered = drained.offered;
        }
        if self.at < self.raw.len() {
            let fed = feed(self.tls.as_deref_mut(), &self.raw[self.at..], &mut sink)?;
            self.at += fed.used;
            if self.at == self.raw.len() {
                (self.raw, self.at) = (Vec::new(), 0);
            }
            offered |= fed.offered;
        }
        if offered {
            return Poll::Ready(Ok(()));
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                ready!(self.poll_socket(cx, &mut buffer))?;
                let count = buffer.filled().len();
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                let fed = feed(self.tls.as_deref_mut(), &scratch[..count], &mut sink)?;
                if fed.used < count {
                    (self.raw, self.at) = (scratch[fed.used..count].to_vec(), 0);
                }
                if fed.offered {
                    return Poll::Ready(Ok(()));
                }
            }
        })
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.socket.poll_read(cx, buffer);
        #[cfg(target_os = "linux")]
        if let Socket::Tcp(tcp) = &self.socket {
            match &read {
                Poll::Pending => self.gather.wait(cx, tcp),
                Poll::Ready(_) => self.gather.took(tcp, buffer.filled().len()),
            }
        }
        read
    }

    /// From now on nobody may wait for what arrives: the smallest message counts.
    pub fn rest(&mut self) {
        #[cfg(target_os = "linux")]
        if let Socket::Tcp(tcp) = &self.socket {
            self.gather.stop(tcp);
        }
    }

    /// Takes the whole of `parts`, and sends at once what the socket takes.
    ///
    /// # Errors
    /// Of the socket or of TLS.
    pub fn send(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            let length: usize = parts.iter().map(|p| p.len()).sum();
            if tls.writer().write_vectored(parts)? != length {
                return Err(io::Error::other("TLS took less than a frame"));
            }
        } else {
            let mut done = 0;
            if self.out.is_empty()
                && let Poll::Ready(count) = self.socket.poll_write(cx, parts)
            {
                done = count?;
            }
            for part in parts {
                let skip = done.min(part.len());
                done -= skip;
                self.out.extend_from_slice(&part[skip..]);
            }
        }
        match self.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Whether all that was taken was sent.
    pub fn is_clear(&self) -> bool {
        self.out.is_empty() && self.tls.as_ref().is_none_or(|tls| !tls.wants_write())
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// Of the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut Sync { socket: &mut self.socket, cx: &mut *cx }) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        while self.sent < self.out.len() {
            let rest = [IoSlice::new(&self.out[self.sent..])];
            match ready!(self.socket.poll_write(cx, &rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if self.sent > 0 {
            (self.out, self.sent) = (Vec::new(), 0);
        }
        // A socket of unknown type may keep bytes until it is flushed.
        if let Socket::Upgraded(io) = &mut self.socket {
            return Pin::new(io).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }
}

/// The socket may have been connected on another runtime: this one has to wake for it from now on.
fn adopt(tcp: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(tcp.into_std()?)
}

struct Fed {
    used: usize,
    offered: bool,
}

struct Drained {
    offered: bool,
    full: bool,
}

/// Offers what rustls has decrypted.
fn drain(tls: &mut ClientConnection, sink: &mut impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<Drained> {
    let mut drained = Drained { offered: false, full: false };
    let mut reader = tls.reader();
    loop {
        let (used, whole) = match reader.fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(chunk) => (sink(chunk)?, chunk.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(drained),
            Err(error) => return Err(error),
        };
        reader.consume(used);
        drained.offered = true;
        if used < whole {
            drained.full = true;
            return Ok(drained);
        }
    }
}

/// Feeds what the socket gave, through TLS where there is TLS, until `sink` wants no more.
fn feed(
    tls: Option<&mut ClientConnection>,
    bytes: &[u8],
    sink: &mut impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<Fed> {
    let Some(tls) = tls else {
        return Ok(Fed { used: sink(bytes)?, offered: true });
    };
    let mut fed = Fed { used: 0, offered: false };
    while fed.used < bytes.len() {
        fed.used += fill(tls, &bytes[fed.used..])?;
        tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let drained = drain(tls, sink)?;
        fed.offered |= drained.offered;
        if drained.full {
            break;
        }
    }
    Ok(fed)
}

/// As much as rustls' buffer takes, which is a whole record: it takes 4 KiB at a time, and would look at each quarter of
/// a record in vain.
fn fill(tls: &mut ClientConnection, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match tls.read_tls(&mut &bytes[taken..]) {
            Ok(0) => break,
            Ok(count) => taken += count,
            // Its buffer is full.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Socket::Upgraded(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Socket::Upgraded(io) => Pin::new(io).poll_write_vectored(cx, parts),
        }
    }
}

/// The socket as rustls writes to it: not ready is WouldBlock, and the task is woken later.
struct Sync<'a, 'b> {
    socket: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

impl Write for Sync<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.socket.poll_write(self.cx, parts) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
