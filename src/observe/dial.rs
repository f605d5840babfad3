//! One blocking dial: TCP, then HTTP, with the class of every failure kept.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::model::Outcome;

/// What is asked of the one who answers.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Value of the Host header.
    pub host: &'a str,
    /// Path with its leading slash; none: connecting is enough.
    pub path: Option<&'a str>,
    /// Text that only the right application's answer holds.
    pub marker: Option<&'a str>,
}

/// At most this much of an answer is read in search of the marker.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Dials, and asks where a path is given. `timeout` bounds connecting and the answer each.
/// kube-proxy's REJECT is rate-limited by the kernel (1 s): a timeout below 1.5 s would call it a drop.
pub fn dial(ip: IpAddr, port: u16, ask: &Ask<'_>, timeout: Duration) -> (Outcome, Duration) {
    let start = Instant::now();
    let outcome = match TcpStream::connect_timeout(&SocketAddr::new(ip, port), timeout) {
        Err(error) => classify(&error),
        Ok(stream) => match ask.path {
            None => Outcome::Connected,
            Some(path) => request(stream, path, ask, timeout),
        },
    };
    (outcome, start.elapsed())
}

/// The class of a failed connect.
pub fn classify(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Timeout,
        // EINVAL: Linux' answer where a route of type blackhole leads there.
        ErrorKind::HostUnreachable | ErrorKind::InvalidInput => Outcome::NoRoute,
        ErrorKind::NetworkUnreachable => Outcome::NetworkUnreachable,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Outcome::Reset,
        ErrorKind::PermissionDenied => Outcome::Forbidden,
        _ => Outcome::Other { message: error.to_string() },
    }
}

/// The request that every probe sends: what a browser would ask for, closing afterwards.
pub fn head(path: &str, host: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kubectl-bookaccess\r\nAccept: text/html, */*\r\nConnection: close\r\n\r\n"
    )
}

fn request(mut stream: TcpStream, path: &str, ask: &Ask<'_>, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let _ = stream.set_write_timeout(Some(timeout));
    let head = head(path, ask.host);
    if let Err(error) = stream.write_all(head.as_bytes()) {
        return classify(&error);
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let _ = stream.set_read_timeout(Some(left));
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                break;
            }
            Err(error) if answer.is_empty() => return classify(&error),
            Err(_) => break,
        }
        if answer.len() >= ANSWER_LIMIT || (ask.marker.is_some() && judge(&answer, ask.marker).is_right()) {
            break;
        }
    }
    if answer.is_empty() {
        return if Instant::now() >= deadline { Outcome::Silent } else { Outcome::Empty };
    }
    let judged = judge(&answer, ask.marker);
    if Instant::now() >= deadline && !judged.is_right() && is_cut_short(&answer) {
        return Outcome::Stalled;
    }
    judged
}

/// Asks for the same page in packets that pass every path (RFC 1122's default segment): what then comes, and did not
/// before, was too large on its way.
///
/// # Errors
/// Of the system, before the dial.
#[cfg(target_os = "linux")]
pub fn in_small_packets(
    ip: IpAddr,
    port: u16,
    ask: &Ask<'_>,
    timeout: Duration,
) -> std::io::Result<(Outcome, Duration)> {
    use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    const SEGMENT: u32 = 536;
    let start = Instant::now();
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    setsockopt(&socket, TcpMaxSeg, &SEGMENT)?;
    // Bounds connecting as well (socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    let outcome = match connect(&socket, &SocketAddr::new(ip, port)) {
        Err(rustix::io::Errno::INPROGRESS) => Outcome::Timeout,
        Err(error) => classify(&error.into()),
        Ok(()) => match ask.path {
            None => Outcome::Connected,
            Some(path) => request(TcpStream::from(socket), path, ask, timeout),
        },
    };
    Ok((outcome, start.elapsed()))
}

/// Whether the answer is of HTTP and ends before the length that its head announces.
fn is_cut_short(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return text.starts_with("HTTP/1.") };
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).next()
    };
    match header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        // A body that is no UTF-8 is longer here than it was, never shorter.
        Some(length) => body.len() < length,
        None => header("transfer-encoding").is_some_and(|e| e.contains("chunked")) && !body.ends_with("0\r\n\r\n"),
    }
}

/// Words of servers that were asked in plain HTTP on a port of TLS (Go's net/http, nginx).
const WANT_TLS: [&str; 2] = ["HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port"];

/// Whether an answer with this status says that the port speaks TLS.
pub fn wants_tls(status: u16, answer: &[u8]) -> bool {
    status == 400 && WANT_TLS.iter().any(|words| answer.windows(words.len()).any(|w| w == words.as_bytes()))
}

/// What an answer is worth: its status, and whether the expected application gave it.
pub fn judge(answer: &[u8], marker: Option<&str>) -> Outcome {
    // A TLS record of type alert (RFC 8446, 5.1): the request was no ClientHello.
    if answer.starts_with(&[0x15, 0x03]) {
        return Outcome::Tls;
    }
    let Some(status) = answer
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
    else {
        return Outcome::NotHttp;
    };
    if wants_tls(status, answer) {
        return Outcome::Tls;
    }
    let right = marker.is_none_or(|m| answer.windows(m.len()).any(|w| w == m.as_bytes()));
    Outcome::Http { status, right }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_stops_midway_is_known_by_its_head() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Len"[..], true),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhalf", false),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false),
            (b"HTTP/1.0 200 OK\r\n\r\nuntil it closes", false),
            (b"SSH-2.0", false),
        ] {
            assert_eq!(is_cut_short(answer), expected, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn an_answer_is_what_its_first_bytes_say() {
        let right = Outcome::Http { status: 200, right: true };
        let wrong = Outcome::Http { status: 400, right: false };
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nSimple Bookstore App"[..], right),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nno such book", wrong),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", Outcome::Tls),
            (b"\x15\x03\x01\x00\x02\x02\x46", Outcome::Tls),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Outcome::NotHttp),
        ] {
            assert_eq!(judge(answer, Some("Simple Bookstore App")), expected, "{}", String::from_utf8_lossy(answer));
        }
    }
}
