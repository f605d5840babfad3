//! To the pod's own address.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::forward::endpoints::Endpoint;
use crate::forward::flow::Side;

/// A pod network answers within milliseconds or not at all; a longer wait would be felt in the browser.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a pod's address.
#[derive(Debug)]
pub struct Direct {
    stream: TcpStream,
    /// Nagle's algorithm is off. A single small request does not need that, so it is left to the second write.
    no_delay: bool,
    wrote: bool,
}

/// Dials the pod and sends `first` as soon as it may; says how much of it went. The handshake with a pod of this
/// machine is over before connect(2) returns, and then nothing is waited for.
///
/// # Errors
/// Of the dial: refused where the application listens on loopback only, or no route to that node's pods.
pub async fn open(endpoint: &Endpoint, first: &[u8]) -> io::Result<(Direct, usize)> {
    let address = SocketAddr::new(endpoint.ip, endpoint.port);
    let (stream, sent) = dial(address, first).await?;
    Ok((Direct { stream, no_delay: false, wrote: sent > 0 }, sent))
}

#[cfg(target_os = "linux")]
async fn dial(address: SocketAddr, first: &[u8]) -> io::Result<(TcpStream, usize)> {
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect, send, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    // Sending nothing tells as well whether the handshake is over.
    let sent = match send(&socket, first, SendFlags::NOSIGNAL) {
        Ok(sent) => Some(sent),
        Err(Errno::AGAIN) => None,
        Err(error) => return Err(error.into()),
    };
    let stream = TcpStream::from_std(std::net::TcpStream::from(socket))?;
    if let Some(sent) = sent {
        return Ok((stream, sent));
    }
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, stream.writable()).await;
    connected.map_err(|_| silent(address))??;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok((stream, 0)),
    }
}

#[cfg(not(target_os = "linux"))]
async fn dial(address: SocketAddr, _: &[u8]) -> io::Result<(TcpStream, usize)> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    Ok((stream.map_err(|_| silent(address))??, 0))
}

fn silent(address: SocketAddr) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address}"))
}

impl Direct {
    /// Ends it so that the pod sees that something broke.
    pub fn abort(self) {
        drop(self.stream.set_zero_linger());
    }
}

impl Side for Direct {
    const HALF_CLOSE: bool = true;

    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.stream)
    }
}

impl AsyncRead for Direct {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.wrote && !self.no_delay {
            self.no_delay = true;
            self.stream.set_nodelay(true)?;
        }
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Finds peers that vanished without a word. Best effort: without it they are found when something is sent.
pub fn keep_alive(socket: &TcpStream) {
    #[cfg(unix)]
    set_keep_alive(socket);
    #[cfg(not(unix))]
    let _ = socket;
}

/// As [`keep_alive`], for any socket; connections inherit it from the socket that accepts them (Linux).
#[cfg(unix)]
pub fn set_keep_alive(socket: impl std::os::fd::AsFd) {
    use rustix::net::sockopt;
    let _ = sockopt::set_socket_keepalive(&socket, true);
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let _ = sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(15));
    #[cfg(target_os = "linux")]
    {
        let _ = sockopt::set_tcp_keepidle(&socket, Duration::from_secs(60));
        let _ = sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT);
    }
}

/// Milliseconds that sent bytes may lie unacknowledged, or that a reader may leave its window shut, before the
/// connection counts as dead (RFC 5482). A paused download is alive, so minutes.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: u32 = 300_000;
