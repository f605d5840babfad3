//! What somebody outside sees when dialling a URL: a page, or a class of error.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Place;
use crate::condition::until;

/// What Bookinfo's page is recognised by.
pub const TITLE: &str = "<title>Simple Bookstore App</title>";

/// The outcome of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Answer {
        status: u16,
        body: String,
    },
    Refused,
    NoRoute,
    Timeout,
    Reset,
    /// Anything else, as curl says it.
    Other(String),
}

impl Seen {
    /// Whether it is a 200 with Bookinfo's title.
    pub fn is_page(&self) -> bool {
        matches!(self, Self::Answer { status: 200, body } if body.contains(TITLE))
    }

    /// A 5xx, a 404 or the like, of whatever words.
    pub const fn status(status: u16) -> Self {
        Self::Answer { status, body: String::new() }
    }

    /// Whether this is what `meant` says; of an answer only the status counts.
    pub fn is_like(&self, meant: &Self) -> bool {
        match (self, meant) {
            (Self::Answer { status, .. }, Self::Answer { status: meant, .. }) => status == meant,
            _ => self == meant,
        }
    }

    /// In short, for messages: a body may be long.
    pub fn brief(&self) -> String {
        match self {
            Self::Answer { status, body } => {
                format!("HTTP {status}, {} bytes, title {}", body.len(), body.contains(TITLE))
            }
            other => format!("{other:?}"),
        }
    }
}

/// One request from there, without proxy settings and without reuse.
pub fn fetch(from: &Place, url: &str, limit: Duration) -> Result<Seen> {
    request(from, url, limit, limit)
}

/// As [`fetch`], but gives up after a second where nobody takes the connection. The page itself is waited for: it may be
/// slow as long as its application does not reach what it shows besides.
pub fn glimpse(from: &Place, url: &str) -> Result<Seen> {
    request(from, url, Duration::from_secs(1), Duration::from_secs(3))
}

fn request(from: &Place, url: &str, connecting: Duration, limit: Duration) -> Result<Seen> {
    let seconds = |limit: Duration| format!("{:.1}", limit.as_secs_f64());
    let argv = [
        "curl",
        "--verbose",
        "--silent",
        "--noproxy",
        "*",
        "--connect-timeout",
        &seconds(connecting),
        "--max-time",
        &seconds(limit),
        "--write-out",
        "\n%{http_code}",
        url,
    ];
    let ended = from.run(&argv, limit + Duration::from_secs(10))?;
    let code = ended.code.context("curl was killed")?;
    if code != 0 {
        return Ok(class(code, &ended.stderr));
    }
    let (body, status) = ended.stdout.rsplit_once('\n').context("curl without a status")?;
    Ok(Seen::Answer { status: status.parse()?, body: body.to_owned() })
}

/// curl's exit codes (curl(1)): 7 no connection, 28 timeout, 52 empty answer, 56 failure in receiving.
fn class(code: i32, stderr: &str) -> Seen {
    let failed = stderr.lines().rfind(|line| line.contains(" failed: ")).unwrap_or_default();
    match code {
        7 if failed.ends_with("Connection refused") => Seen::Refused,
        7 if failed.ends_with("No route to host") || failed.ends_with("Network is unreachable") => Seen::NoRoute,
        28 => Seen::Timeout,
        52 => Seen::Reset,
        56 if stderr.contains("reset") => Seen::Reset,
        _ => Seen::Other(format!("curl exit code {code}: {}", stderr.lines().next_back().unwrap_or_default())),
    }
}

/// Waits until the page is there, and gives its body.
pub fn expect_page(from: &Place, url: &str, limit: Duration) -> Result<String> {
    until(&format!("the page at {url} seen from {}", from.name), limit, || {
        match fetch(from, url, Duration::from_secs(3))? {
            Seen::Answer { status: 200, body } if body.contains(TITLE) => Ok(body),
            other => bail!("{}", other.brief()),
        }
    })
}

/// Waits until a request fails in one of these ways.
pub fn expect_failure(from: &Place, url: &str, ways: &[Seen], limit: Duration) -> Result<Seen> {
    until(&format!("{url} seen from {} as {ways:?}", from.name), limit, || {
        let seen = fetch(from, url, Duration::from_secs(4))?;
        ensure!(ways.iter().any(|way| seen.is_like(way)), "{}", seen.brief());
        Ok(seen)
    })
}

/// Serves one text to every connection that asks anything, until the process ends.
pub fn serve(ip: &str, text: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            // A client that only knocks asks nothing.
            if BufReader::new(&stream).read_line(&mut line).is_ok_and(|n| n > 0) {
                let _ = stream.write_all(text.as_bytes());
            }
        }
    });
    Ok(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    fn here() -> Place {
        Place { name: "here".into(), enter: vec![] }
    }

    #[test]
    fn the_classes_are_told_apart() {
        let second = Duration::from_secs(1);
        let page = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
        let (page_url, silent_url) = (url(&page), url(&silent));
        let gone = url(&TcpListener::bind("127.0.0.1:0").unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = page.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TITLE}", TITLE.len()).unwrap();
        });
        assert!(fetch(&here(), &page_url, second).unwrap().is_page());
        assert_eq!(fetch(&here(), &gone, second).unwrap(), Seen::Refused);
        assert_eq!(fetch(&here(), &silent_url, second).unwrap(), Seen::Timeout);
        let unreachable = "* connect to 203.0.113.10 port 30080 failed: No route to host\n* Closing";
        assert_eq!(class(7, unreachable), Seen::NoRoute);
        assert!(matches!(class(6, "x"), Seen::Other(_)));
    }
}
