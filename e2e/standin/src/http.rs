//! An HTTP/1.1 server of the plainest kind: one thread a connection, keep-alive, Content-Length.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::apps::App;
use crate::faulty::{ALERT, Fault, WANTS_TLS};
use crate::trial;

/// A head larger than this is refused.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// How often an idle connection looks whether the program is ending.
const IDLE_LOOK: Duration = Duration::from_millis(200);
/// How long a sender may pause in the middle of a head or body.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);

/// A request, its body already read and counted.
#[derive(Debug, Default, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Bytes of body received.
    pub body_bytes: u64,
    /// It came in by the pod's own loopback, as a port-forward does.
    pub from_inside: bool,
}

impl Request {
    /// A number of the query string, as `mib` in `?mib=5`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| value.parse().ok())
    }
}

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply {
    Text {
        status: u16,
        kind: &'static str,
        body: String,
    },
    /// That many bytes of the test pattern.
    Pattern {
        bytes: u64,
    },
    /// A reset: at once, or after that many bytes of an answer that promised more.
    Reset {
        after: u64,
    },
}

struct Shared {
    app: App,
    draining: AtomicBool,
    requests: AtomicUsize,
}

/// A running server.
pub struct Server {
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
}

impl Server {
    pub fn start(listener: TcpListener, app: App) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared { app, draining: AtomicBool::new(false), requests: AtomicUsize::new(0) });
        let (door, inside) = (Arc::clone(&listener), Arc::clone(&shared));
        thread::Builder::new().spawn(move || accept(&door, &inside))?;
        Ok(Self { listener, shared })
    }

    /// From now on answers close their connection, and idle connections are closed.
    pub fn drain(&self) {
        self.shared.draining.store(true, SeqCst);
    }

    /// New connections are refused from now on.
    pub fn stop_accepting(&self) {
        // Linux ends a blocked accept with EINVAL when its socket is shut down.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }

    /// Whether a request is in progress.
    pub fn busy(&self) -> bool {
        self.shared.requests.load(SeqCst) > 0
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                let thread = thread::Builder::new().stack_size(256 * 1024);
                // No thread to be had: the connection is dropped, the next one may fare better.
                let _ = thread.spawn(move || Connection::new(stream).serve(&shared));
            }
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => return,
            // Out of descriptors, or the peer gave up while queued: both pass.
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Received and not yet used.
    buffer: Vec<u8>,
}

/// The head of a request, read.
pub struct Head {
    pub request: Request,
    /// Bytes of body announced.
    pub length: u64,
    pub expects_continue: bool,
    /// The connection ends after the answer.
    pub close: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(2048) }
    }

    /// Serves requests until one side closes; an error ends the connection and nothing else.
    fn serve(&mut self, shared: &Shared) {
        let _ = self.stream.set_nodelay(true);
        while let Ok(true) = self.wait(shared) {
            if shared.app.fault == Some(Fault::Tls) {
                // 22: a TLS handshake (RFC 8446 §5.1).
                let _ = self.stream.write_all(if self.buffer.first() == Some(&22) { ALERT } else { WANTS_TLS });
                return;
            }
            shared.requests.fetch_add(1, SeqCst);
            let more = self.exchange(shared);
            shared.requests.fetch_sub(1, SeqCst);
            if !matches!(more, Ok(true)) {
                return;
            }
        }
    }

    /// Waits for the first byte of a request; false when there will be none.
    fn wait(&mut self, shared: &Shared) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(IDLE_LOOK))?;
        while self.buffer.is_empty() {
            match self.receive() {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock) => {
                    if shared.draining.load(SeqCst) {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        self.stream.set_read_timeout(Some(PAUSE_LIMIT))?;
        Ok(true)
    }

    /// One request and its answer; true when another may follow.
    fn exchange(&mut self, shared: &Shared) -> io::Result<bool> {
        let Some(mut head) = self.head()? else {
            self.text(400, "text/plain", "bad request\n", false, true)?;
            return Ok(false);
        };
        if head.expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.discard(head.length)?;
        head.request.body_bytes = head.length;
        head.request.from_inside = self.stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let reply = shared.app.answer(&head.request);
        let close = head.close || shared.draining.load(SeqCst);
        match reply {
            Reply::Text { status, kind, body } => {
                self.text(status, kind, &body, head.request.method == "HEAD", close)?;
            }
            Reply::Pattern { bytes } => {
                self.start(200, "application/octet-stream", bytes, close)?;
                trial::write_pattern(&mut self.stream, bytes)?;
            }
            Reply::Reset { after } => {
                if after > 0 {
                    self.start(200, "application/octet-stream", after + 1, true)?;
                    trial::write_pattern(&mut self.stream, after)?;
                }
                rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
                return Ok(false);
            }
        }
        Ok(!close)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// Reads one head; None when it is none.
    fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = parse(&self.buffer[..end]);
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Ok(None);
            }
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn discard(&mut self, length: u64) -> io::Result<()> {
        let held = length.min(self.buffer.len() as u64);
        self.buffer.drain(..held as usize);
        let mut left = length - held;
        let mut piece = vec![0; left.min(256 * 1024) as usize];
        while left > 0 {
            let want = left.min(piece.len() as u64) as usize;
            match self.stream.read(&mut piece[..want])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left -= count as u64,
            }
        }
        Ok(())
    }

    fn start(&mut self, status: u16, kind: &str, length: u64, close: bool) -> io::Result<()> {
        self.stream.write_all(head_text(status, kind, length, close).as_bytes())
    }

    fn text(&mut self, status: u16, kind: &str, body: &str, bare: bool, close: bool) -> io::Result<()> {
        let mut bytes = head_text(status, kind, body.len() as u64, close);
        if !bare {
            bytes.push_str(body);
        }
        self.stream.write_all(bytes.as_bytes())
    }
}

/// The head of an answer.
pub fn head_text(status: u16, kind: &str, length: u64, close: bool) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    };
    let end = if close { "Connection: close\r\n" } else { "" };
    format!("HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{end}\r\n")
}

/// None for what is no request, or has a body of unannounced length.
pub fn parse(head: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !target.starts_with('/') {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Head {
        request: Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            ..Request::default()
        },
        length: 0,
        expects_continue: false,
        close: version != "HTTP/1.1",
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().ok()?,
            "transfer-encoding" => return None,
            "connection" => {
                head.close =
                    value.eq_ignore_ascii_case("close") || (head.close && !value.eq_ignore_ascii_case("keep-alive"));
            }
            "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_head_is_read_and_junk_is_not() {
        let head =
            parse(b"POST /test/sink?mib=3&ms=x HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\nExpect: 100-continue")
                .unwrap();
        assert_eq!(head.length, 12);
        assert!(head.expects_continue && !head.close);
        assert_eq!(head.request.path, "/test/sink");
        assert_eq!(head.request.number("mib"), Some(3));
        assert_eq!(head.request.number("ms"), None);
        for junk in ["", "GET", "GET / HTTP/1.1 more", "GET x HTTP/1.1", "GET / HTTP/1.1\r\nnocolon"] {
            assert!(parse(junk.as_bytes()).is_none(), "{junk:?}");
        }
        assert!(parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked").is_none());
    }

    #[test]
    fn http_1_0_closes_unless_asked_to_stay() {
        assert!(parse(b"GET / HTTP/1.0").unwrap().close);
        assert!(!parse(b"GET / HTTP/1.0\r\nConnection: keep-alive").unwrap().close);
        assert!(parse(b"GET / HTTP/1.1\r\nConnection: close").unwrap().close);
    }
}
