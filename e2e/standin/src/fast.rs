//! Role `bench`: the server end of a measurement. A few threads, epoll, large writes, so that what stands
//! between client and server is what takes the time. (Bodies by sendfile were tried: pages of 4 KiB instead of the
//! socket's own of 32 KiB cost half the throughput.)
//!
//! `GET /bytes?n=N` answers N bytes of the test pattern, a body of any size is taken and counted, and every other
//! path answers a small page, which probes take for the right one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{SocketFlags, accept_with, listen, sockopt};

use crate::http::{HEAD_LIMIT, head_text, parse};
use crate::trial;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Bytes of pattern held in memory; bodies repeat them.
pub const BODY: u64 = trial::PERIOD as u64 * 1024;
/// Bytes of one body that are sent before other connections have their turn.
const TURN: u64 = 4 * 1024 * 1024;
/// What is read at once.
const PIECE: usize = 256 * 1024;
/// The listener's mark among the events; connections have their index.
const LISTENER: u64 = u64::MAX;
/// The small answer: the page's title, and about as many bytes as an answer of an API.
const SMALL: &str = "<!DOCTYPE html>\n<html><head><title>Simple Bookstore App</title></head>\
    <body><h2>Book Details</h2><h2>Book Reviews</h2></body></html>\n";

/// Serves from now on, on threads of its own.
pub fn start(listener: &TcpListener) -> io::Result<()> {
    let mut body = Vec::with_capacity(BODY as usize);
    trial::write_pattern(&mut body, BODY)?;
    let body: Arc<[u8]> = body.into();
    listener.set_nonblocking(true)?;
    listen(listener, BACKLOG)?;
    // Connections inherit it.
    sockopt::set_tcp_nodelay(listener, true)?;
    let threads = thread::available_parallelism().map_or(2, usize::from).min(4);
    for _ in 0..threads {
        let (listener, body) = (listener.try_clone()?, Arc::clone(&body));
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        // One thread is woken for a connection, and a busy thread is not.
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&events, &listener, EventData::new_u64(LISTENER), flags)?;
        let server = Server { events, listener, body, connections: Vec::new(), free: Vec::new() };
        thread::Builder::new().spawn(move || server.serve())?;
    }
    Ok(())
}

struct Server {
    events: OwnedFd,
    listener: TcpListener,
    body: Arc<[u8]>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Server {
    fn serve(mut self) {
        let mut ready = Vec::with_capacity(256);
        let mut piece = vec![0; PIECE];
        loop {
            ready.clear();
            if epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut ready), None).is_err() {
                // A signal for the process; the threads go on until it ends.
                continue;
            }
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    index => self.advance(index as usize, &mut piece),
                }
            }
        }
    }

    fn accept(&mut self) {
        // Errors pass: nobody waits any more, a peer gave up while queued, or no descriptor is free.
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let index = self.free.pop().unwrap_or(self.connections.len());
            if epoll::add(&self.events, &socket, EventData::new_u64(index as u64), EventFlags::IN).is_err() {
                self.free.push(index);
                continue;
            }
            let connection = Some(Connection::new(socket.into()));
            match self.connections.get_mut(index) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
    }

    fn advance(&mut self, index: usize, piece: &mut [u8]) {
        let Some(place) = self.connections.get_mut(index) else { return };
        let Some(connection) = place else { return };
        match connection.advance(&self.body, piece) {
            Ok(Some(wanted)) if wanted == connection.wanted => {}
            Ok(Some(wanted)) => {
                connection.wanted = wanted;
                let data = EventData::new_u64(index as u64);
                if epoll::modify(&self.events, &connection.stream, data, wanted).is_err() {
                    *place = None;
                    self.free.push(index);
                }
            }
            // Ended, or broken: neither touches another connection. Closing takes it out of the events.
            Ok(None) | Err(_) => {
                *place = None;
                self.free.push(index);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// What the next event must be.
    wanted: EventFlags,
    /// Received and not yet used.
    input: Vec<u8>,
    /// To be sent before a body.
    output: Vec<u8>,
    /// How much of a body is sent, and how much is not.
    sent: u64,
    unsent: u64,
    /// Bytes of a request's body that are still to come, and all of them.
    to_come: u64,
    announced: u64,
    close: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            wanted: EventFlags::IN,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            unsent: 0,
            to_come: 0,
            announced: 0,
            close: false,
        }
    }

    /// Goes on as far as possible; gives what to wait for, or none at the end.
    fn advance(&mut self, body: &[u8], piece: &mut [u8]) -> io::Result<Option<EventFlags>> {
        let mut turn = TURN;
        let mut drained = false;
        loop {
            while !self.output.is_empty() {
                match (&self.stream).write(&self.output) {
                    Ok(count) => drop(self.output.drain(..count)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Some(EventFlags::OUT)),
                    Err(e) => return Err(e),
                }
            }
            while self.unsent > 0 {
                if turn == 0 {
                    return Ok(Some(EventFlags::OUT));
                }
                let offset = self.sent % BODY;
                let count = self.unsent.min(BODY - offset).min(PIECE as u64);
                match (&self.stream).write(&body[offset as usize..(offset + count) as usize]) {
                    Ok(count) => {
                        self.sent += count as u64;
                        self.unsent -= count as u64;
                        turn = turn.saturating_sub(count as u64);
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Some(EventFlags::OUT)),
                    Err(e) => return Err(e),
                }
            }
            if self.close && self.to_come == 0 {
                return Ok(None);
            }
            if self.to_come == 0 && self.request()? {
                continue;
            }
            // A short read took all there was: the next event tells of more.
            if drained || turn == 0 {
                return Ok(Some(EventFlags::IN));
            }
            let count = match (&self.stream).read(piece) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Some(EventFlags::IN)),
                Err(e) => return Err(e),
            };
            drained = count < piece.len();
            turn = turn.saturating_sub(count as u64);
            self.take(&piece[..count]);
        }
    }

    /// Bytes of a body are counted, others kept.
    fn take(&mut self, bytes: &[u8]) {
        let count = self.to_come.min(bytes.len() as u64);
        self.input.extend_from_slice(&bytes[count as usize..]);
        if count > 0 {
            self.to_come -= count;
            if self.to_come == 0 {
                self.uploaded();
            }
        }
    }

    /// Answers the request in `input`; false when none is there yet.
    fn request(&mut self) -> io::Result<bool> {
        let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.input.len() > HEAD_LIMIT { Err(io::ErrorKind::InvalidData.into()) } else { Ok(false) };
        };
        let head = parse(&self.input[..end]).ok_or(io::ErrorKind::InvalidData)?;
        self.input.drain(..end + 4);
        self.close = head.close;
        if head.length > 0 {
            if head.expects_continue {
                self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            self.to_come = head.length;
            self.announced = head.length;
            let held = std::mem::take(&mut self.input);
            self.take(&held);
        } else if head.request.path == "/bytes" {
            let bytes = head.request.number("n").unwrap_or(1024);
            self.output.extend_from_slice(head_text(200, "application/octet-stream", bytes, self.close).as_bytes());
            (self.sent, self.unsent) = (0, bytes);
        } else {
            self.small("text/html; charset=utf-8", SMALL);
        }
        Ok(true)
    }

    fn uploaded(&mut self) {
        self.small("application/json", &format!("{{\"bytes\":{}}}\n", self.announced));
    }

    fn small(&mut self, kind: &str, body: &str) {
        self.output.extend_from_slice(head_text(200, kind, body.len() as u64, self.close).as_bytes());
        self.output.extend_from_slice(body.as_bytes());
    }
}
