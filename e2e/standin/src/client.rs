//! One GET with a deadline that holds for all of it: name, connection, answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::dns::Resolver;

/// A part of a page is never larger.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// The body of a 200; anything else is an error.
pub fn get(resolver: &Resolver, host: &str, port: u16, path: &str, deadline: Instant) -> io::Result<String> {
    let address = resolver.lookup(host, deadline)?;
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), left(deadline)?)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
        if answer.len() > ANSWER_LIMIT {
            return Err(io::Error::other("answer too long"));
        }
    }
    let text = String::from_utf8(answer).map_err(io::Error::other)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("{host} answers {first}")));
    }
    let announced = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    if announced.is_some_and(|length: usize| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body.to_owned())
}

/// Time left, never zero: a zero timeout means none at all to the socket.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
