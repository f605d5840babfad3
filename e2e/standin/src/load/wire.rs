//! One connection of the load: a request out, its answer in, as far as the socket lets it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};

/// What a request consists of.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its head, and nothing else where it has no body.
    pub head: Vec<u8>,
    /// Bytes of body; their content is that of the caller's block.
    pub body: u64,
}

impl Request {
    pub fn get(path: &str, address: SocketAddr) -> Self {
        Self { head: format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes(), body: 0 }
    }

    pub fn post(path: &str, address: SocketAddr, body: u64) -> Self {
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {body}\r\n\r\n");
        Self { head: head.into_bytes(), body }
    }
}

/// How far an exchange has come.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// It goes on when the socket is ready for this.
    Wait(EventFlags),
    /// The answer is there, with that many bytes of body.
    Answered { body: u64 },
}

/// A connection, with at most one exchange in progress.
pub struct Wire {
    stream: TcpStream,
    /// What its next event must be.
    pub wanted: EventFlags,
    pub busy: bool,
    /// When the exchange began, or was due.
    pub began: Instant,
    sent: u64,
    head: Vec<u8>,
    /// Bytes of the answer's body: announced, once its head is read, and received.
    length: Option<u64>,
    received: u64,
}

impl AsFd for Wire {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Wire {
    /// Begins to connect.
    pub fn open(address: SocketAddr) -> Result<Self, String> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
            .map_err(|e| format!("no socket: {e}"))?;
        sockopt::set_tcp_nodelay(&socket, true).map_err(|e| format!("nodelay: {e}"))?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(format!("connect: {e}")),
        }
        Ok(Self {
            stream: socket.into(),
            wanted: EventFlags::OUT,
            busy: false,
            began: Instant::now(),
            sent: 0,
            head: Vec::new(),
            length: None,
            received: 0,
        })
    }

    /// Begins an exchange; [`Wire::advance`] carries it on.
    pub fn begin(&mut self, began: Instant) {
        self.busy = true;
        self.began = began;
        self.sent = 0;
        self.head.clear();
        self.length = None;
        self.received = 0;
    }

    /// Carries the exchange on as far as the socket lets it. `block` is what bodies are made of.
    pub fn advance(&mut self, request: &Request, block: &[u8], piece: &mut [u8]) -> Result<Progress, String> {
        let head = request.head.len() as u64;
        while self.sent < head + request.body {
            let bytes = match request.head.get(self.sent as usize..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &block[..block.len().min((head + request.body - self.sent) as usize)],
            };
            match self.stream.write(bytes) {
                Ok(count) => self.sent += count as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Progress::Wait(EventFlags::OUT)),
                // A connection that was refused says so here.
                Err(e) => return Err(format!("send: {e}")),
            }
            if self.sent == head + request.body {
                // The answer takes a moment: reading at once would be in vain.
                return Ok(Progress::Wait(EventFlags::IN));
            }
        }
        loop {
            let count = match self.stream.read(piece) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Progress::Wait(EventFlags::IN)),
                Err(e) => return Err(format!("broken after {} bytes of body: {e}", self.received)),
            };
            self.take(&piece[..count])?;
            if self.length.is_some_and(|length| self.received >= length) {
                return self.answered();
            }
            if count < piece.len() {
                return Ok(Progress::Wait(EventFlags::IN));
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.length.is_some() {
            self.received += bytes.len() as u64;
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.head.len() > 16 * 1024 { Err("the answer is not HTTP".into()) } else { Ok(()) };
        };
        self.length = Some(length(&self.head[..end])?);
        self.received = (self.head.len() - end - 4) as u64;
        Ok(())
    }

    fn ended(&self) -> String {
        match self.length {
            Some(length) => format!("ended after {} of {length} bytes", self.received),
            None => "ended without an answer".into(),
        }
    }

    fn answered(&mut self) -> Result<Progress, String> {
        self.busy = false;
        match self.length {
            Some(length) if length == self.received => Ok(Progress::Answered { body: length }),
            length => Err(format!("{} bytes where {length:?} were announced", self.received)),
        }
    }
}

/// The Content-Length of an answer that must be a 200.
fn length(head: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(head).map_err(|_| "the answer is not HTTP")?;
    let (status, fields) = text.split_once("\r\n").unwrap_or((text, ""));
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(status.chars().take(80).collect());
    }
    fields
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| "an answer without Content-Length".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_of_known_length_counts() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nX: y\r\ncontent-length: 12"), Ok(12));
        for bad in [
            "HTTP/1.1 503 No\r\nContent-Length: 1",
            "HTTP/1.1 200 OK",
            "SSH-2.0",
            "HTTP/1.1 200 OK\r\nContent-Length: x",
        ] {
            assert!(length(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
