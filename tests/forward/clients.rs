//! Clients of a forward, each with one way of its own to behave, and what they see.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use e2e::apiserver::apps::{self, PAGE, pattern};

/// A client that has seen no end until then says so.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a client does with its connection.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// Asks, and reads to the end.
    Ask,
    /// Asks and ends its side, as `nc -N`; then reads to the end.
    AskAndEnd,
    /// Reads to the end without a word.
    Listen,
    /// Reads this much without a word, ends its side and reads to the end.
    ListenAndEnd(usize),
    /// Sends so many bytes of the pattern while it reads, ends its side and reads to the end.
    Exchange(usize),
    /// Sends so many bytes of the pattern, one a segment, reads each back, ends its side and reads to the end.
    Trickle(usize),
    /// So many requests over one connection, each after the answer before; then it ends.
    Pages(usize),
    /// One request over HTTP, and no more.
    Page,
    /// Asks, reads this much and ends, as who knows the length of the answer.
    Read(usize),
    /// Asks, reads this much and resets the connection.
    Leave(usize),
    /// Sends without end into an application that does not read, until nothing goes any more; holds the connection.
    Stuff,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With FIN: all is said.
    Fin,
    /// With RST: something is missing.
    Reset,
    /// Not at all.
    Open,
    /// By the client itself.
    Own,
    /// Nobody listens.
    Refused,
}

/// What a client saw.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub bytes: Vec<u8>,
    pub end: End,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B, {:?}", self.bytes.len(), self.end)
    }
}

fn request() -> &'static [u8] {
    b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
}

fn get() -> &'static [u8] {
    b"GET /productpage HTTP/1.1\r\nHost: x\r\n\r\n"
}

/// A page as the application sends it, with its head.
pub fn page() -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len()).into_bytes()
}

/// Connects.
pub fn connect(at: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads up to `most` bytes into `seen`. Some where the connection ended before.
fn read(mut stream: &TcpStream, seen: &mut Vec<u8>, most: usize) -> Option<End> {
    let mut buffer = vec![0; 64 * 1024];
    while seen.len() < most {
        let room = buffer.len().min(most - seen.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Some(End::Fin),
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let open = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                return Some(if open { End::Open } else { End::Reset });
            }
        }
    }
    None
}

fn to_the_end(stream: &TcpStream, seen: &mut Vec<u8>) -> End {
    read(stream, seen, usize::MAX).unwrap_or(End::Open)
}

/// Ends the client's side; that the other side is gone shows when it is read.
fn end(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
}

impl Client {
    /// Behaves so at a forward's address. A connection that the client holds afterwards comes along.
    pub fn run(self, at: SocketAddr) -> (Seen, Option<TcpStream>) {
        let mut bytes = Vec::new();
        let Ok(mut stream) = connect(at) else { return (Seen { bytes, end: End::Refused }, None) };
        let sent = match self {
            Client::Ask | Client::AskAndEnd | Client::Read(_) | Client::Leave(_) => stream.write_all(request()),
            Client::Page => stream.write_all(get()),
            _ => Ok(()),
        };
        if sent.is_err() {
            return (Seen { bytes, end: End::Reset }, None);
        }
        let ended = match self {
            Client::Ask | Client::Listen => to_the_end(&stream, &mut bytes),
            Client::AskAndEnd => {
                end(&stream);
                to_the_end(&stream, &mut bytes)
            }
            Client::ListenAndEnd(length) => read(&stream, &mut bytes, length).unwrap_or_else(|| {
                end(&stream);
                to_the_end(&stream, &mut bytes)
            }),
            Client::Exchange(length) => std::thread::scope(|threads| {
                threads.spawn(|| {
                    // A connection that breaks meanwhile is seen by the reader.
                    let _ = (&stream).write_all(&pattern(0, length));
                    end(&stream);
                });
                to_the_end(&stream, &mut bytes)
            }),
            Client::Trickle(length) => {
                let mut broke = None;
                for at in 0..length {
                    let _ = stream.write_all(&pattern(at, 1));
                    broke = read(&stream, &mut bytes, at + 1);
                    if broke.is_some() {
                        break;
                    }
                }
                end(&stream);
                broke.unwrap_or_else(|| to_the_end(&stream, &mut bytes))
            }
            Client::Pages(count) => {
                let length = page().len();
                let broke = (1..=count).find_map(|number| {
                    let _ = stream.write_all(get());
                    read(&stream, &mut bytes, number * length)
                });
                broke.unwrap_or(End::Own)
            }
            Client::Page => read(&stream, &mut bytes, page().len()).unwrap_or(End::Own),
            Client::Read(length) => read(&stream, &mut bytes, length).unwrap_or(End::Own),
            Client::Leave(length) => {
                let broke = read(&stream, &mut bytes, length);
                #[cfg(unix)]
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                broke.unwrap_or(End::Own)
            }
            Client::Stuff => {
                stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
                while stream.write_all(&[0; 64 * 1024]).is_ok() {}
                return (Seen { bytes, end: End::Own }, Some(stream));
            }
        };
        (Seen { bytes, end: ended }, None)
    }
}

/// One exchange with an echo over a connection of its own or one that is kept.
pub fn echoes(stream: &mut TcpStream) -> bool {
    stream.write_all(apps::GREETING).is_ok() && hears(stream)
}

/// Whether what it sent to an echo comes back.
pub fn hears(stream: &TcpStream) -> bool {
    let mut bytes = Vec::new();
    read(stream, &mut bytes, apps::GREETING.len()).is_none() && bytes == apps::GREETING
}
