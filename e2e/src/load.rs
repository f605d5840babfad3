//! An open-loop client: new connections at a steady rate, however long each takes, and what came of them.
//!
//! The load itself runs as a process inside the client's network namespace (xtask's hidden command `load`). It says
//! `ready` once the first requests are answered, goes on until its standard input ends, and prints its [`Count`] as
//! JSON. [`Client`] is the handle of that process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cluster::Place;

/// What one request may take before it counts as failed, by default. A browser's user waits about as long.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Outcomes until the load counts as begun.
const WARM: u32 = 10;
/// A thread a request does nothing that needs more, in bytes.
const STACK: usize = 64 * 1024;

/// What is asked for, and how often.
#[derive(Debug, Clone)]
pub struct Order {
    /// New connections a second.
    pub rate: u32,
    pub address: SocketAddr,
    pub path: String,
    /// What the right answer holds.
    pub marker: String,
    /// What one request may take, from its first packet to its last.
    pub patience: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub answered: u32,
    pub failed: u32,
    /// The slowest answer, in milliseconds.
    pub slowest: u64,
    /// The longest time in which no request was answered, in milliseconds; from the first answer to the load's end.
    pub gap: u64,
    /// How often each kind of failure came, in words.
    pub failures: BTreeMap<String, u32>,
    /// What carried the requests said meanwhile, where some failed and it has a log.
    #[serde(skip)]
    pub log: String,
}

impl Count {
    /// One failure a line, the most frequent first.
    pub fn failures_in_words(&self) -> String {
        let mut all: Vec<_> = self.failures.iter().collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        all.iter().map(|(words, times)| format!("  {times} × {words}")).collect::<Vec<_>>().join("\n")
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { answered, failed, slowest, gap, .. } = self;
        write!(f, "{answered} answered, {failed} failed, slowest {slowest} ms, longest gap {gap} ms")
    }
}

/// Counts outcomes in the order in which they end.
#[derive(Default)]
struct Tally {
    count: Count,
    last: Option<Instant>,
}

impl Tally {
    fn add(&mut self, (ended, outcome): (Instant, Result<Duration>)) {
        match outcome {
            Ok(took) => {
                self.count.answered += 1;
                self.count.slowest = self.count.slowest.max(milliseconds(took));
                self.answered_at(ended);
            }
            Err(error) => {
                self.count.failed += 1;
                *self.count.failures.entry(format!("{error:#}")).or_default() += 1;
            }
        }
    }

    /// An answer, or the end of the load: a path that never comes back has a gap up to there.
    fn answered_at(&mut self, at: Instant) {
        if let Some(last) = self.last {
            self.count.gap = self.count.gap.max(milliseconds(at.saturating_duration_since(last)));
        }
        self.last = self.last.max(Some(at));
    }

    fn outcomes(&self) -> u32 {
        self.count.answered + self.count.failed
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Loads until standard input ends, speaking as [`Client`] expects.
pub fn serve(order: &Order) -> Result<()> {
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        // Reading fails or ends: either way nobody wants more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    let mut stdout = std::io::stdout();
    let count = load(order, &ended, || {
        let _ = writeln!(std::io::stdout(), "ready").and_then(|()| std::io::stdout().flush());
    })?;
    writeln!(stdout, "{}", serde_json::to_string(&count)?)?;
    Ok(())
}

/// Begins `rate` requests a second until told to end; then waits for those begun.
fn load(order: &Order, ended: &mpsc::Receiver<()>, ready: impl FnOnce()) -> Result<Count> {
    let mut tally = Tally::default();
    let mut ready = Some(ready);
    let (send, outcomes) = mpsc::channel();
    let start = Instant::now();
    let interval = Duration::from_secs(1) / order.rate.max(1);
    std::thread::scope(|scope| {
        let mut begun = 0u32;
        loop {
            let next = start + interval * begun;
            match ended.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                _ => break,
            }
            begun += 1;
            let send = send.clone();
            let request = move || {
                let outcome = request(order);
                // Nobody is left to be told where the load failed.
                let _ = send.send((Instant::now(), outcome));
            };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, request).context("too many at once")?;
            for outcome in outcomes.try_iter() {
                tally.add(outcome);
            }
            if let Some(tell) = ready.take_if(|_| tally.outcomes() >= WARM) {
                tell();
            }
        }
        let over = Instant::now();
        drop(send);
        let mut late: Vec<_> = outcomes.iter().collect();
        late.sort_by_key(|(ended, _)| *ended);
        // The last answers before the end come first; what ends after it closes no gap.
        let after = late.iter().position(|(ended, _)| *ended > over).unwrap_or(late.len());
        let rest = late.split_off(after);
        late.into_iter().for_each(|outcome| tally.add(outcome));
        tally.answered_at(over);
        let gap = tally.count.gap;
        rest.into_iter().for_each(|outcome| tally.add(outcome));
        tally.count.gap = gap;
        Ok(tally.count)
    })
}

/// One request on a connection of its own. The answer says how long it is, and the client closes first, as a browser
/// does: the end of a stream that an application closes takes containerd a second to pass on in a port-forward.
fn request(order: &Order) -> Result<Duration> {
    let start = Instant::now();
    let left = || {
        let left = order.patience.saturating_sub(start.elapsed());
        if left.is_zero() { bail!(LATE) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&order.address, order.patience).context("cannot connect")?;
    stream.set_write_timeout(Some(left()?))?;
    let question = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", order.path, order.address);
    stream.write_all(question.as_bytes()).context("cannot send")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let body = loop {
        if let Some(body) = body_of(&answer)? {
            break body;
        }
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) if answer.is_empty() => bail!("closed without an answer"),
            Ok(0) => bail!("closed in mid-answer"),
            Ok(n) => answer.extend_from_slice(&piece[..n]),
            // A read that times out says WouldBlock on Linux.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                ensure!(!answer.is_empty(), "connected, and no byte in time");
                bail!(LATE)
            }
            Err(e) if answer.is_empty() => return Err(e).context("before the first byte"),
            Err(e) => return Err(e).context("in mid-answer"),
        }
    };
    ensure!(body.contains(&order.marker), "an answer of something else");
    Ok(start.elapsed())
}

const LATE: &str = "not done in time";

/// The body of an answer with `Content-Length`, once all of it is there.
fn body_of(answer: &[u8]) -> Result<Option<String>> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{status}");
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.context("an answer without a length")?.1.trim().parse()?;
    Ok((body.len() >= length).then(|| body.to_owned()))
}

/// The load, running at some place.
pub struct Client {
    child: Child,
}

impl Client {
    /// Starts it there by the program at `program` (as seen there) and waits for its first answers.
    pub fn start(at: &Place, program: &Path, order: &Order) -> Result<Self> {
        let words = at.enter.iter().map(String::as_str);
        let mut command = Command::new("env");
        command.args(words).arg(program).arg("load");
        command.args([format!("--rate={}", order.rate), format!("--patience-ms={}", order.patience.as_millis())]);
        command.args([format!("--marker={}", order.marker), order.address.to_string(), order.path.clone()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the load")?;
        let mut load = Self { child };
        let mut lines = BufReader::new(load.child.stdout.take().context("piped")?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        ensure!(first.trim() == "ready", "the load does not begin: {first}");
        load.child.stdout = Some(lines.into_inner());
        Ok(load)
    }

    /// Ends it and gives its count.
    pub fn end(mut self) -> Result<Count> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.child.stdout.take().context("ended twice")?.read_to_string(&mut text)?;
        ensure!(self.child.wait()?.success(), "the load failed: {text}");
        serde_json::from_str(&text).with_context(|| format!("the load's count: {text}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends with its standard input; where it ended before, killing fails, and that is fine.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;

    /// Answers every third connection by closing it.
    fn flaky() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                if n % 3 != 2 {
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright");
                }
            }
        });
        address
    }

    fn order(address: SocketAddr, marker: &str) -> Order {
        Order { rate: 200, address, path: "/".into(), marker: marker.into(), patience: PATIENCE }
    }

    #[test]
    fn every_connection_is_counted_and_a_cut_one_as_failed() {
        let (address, (end, ended)) = (flaky(), mpsc::channel());
        let count = load(&order(address, "right"), &ended, || end.send(()).unwrap()).unwrap();
        assert!(count.answered + count.failed >= WARM, "{count:?}");
        assert!(count.failed >= 3 && count.answered >= 2 * count.failed - 2, "{count:?}");
        assert_eq!(count.failures.get("closed without an answer"), Some(&count.failed), "{count:?}");
        assert!(request(&order(address, "wrong")).is_err());
    }

    #[test]
    fn a_closed_port_fails() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(request(&order(address, "")).unwrap_err().to_string().contains("cannot connect"));
    }

    #[test]
    fn an_answer_is_whole_when_its_length_is_there() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(body_of(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert_eq!(body_of(format!("{head}righ").as_bytes()).unwrap(), None);
        assert_eq!(body_of(format!("{head}right").as_bytes()).unwrap().as_deref(), Some("right"));
        assert!(body_of(b"HTTP/1.1 503 Busy\r\n\r\n").is_err() && body_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_gap_is_the_longest_time_without_an_answer_and_lasts_to_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::default();
        for (ms, good) in [(0, true), (5, true), (100, false), (605, true), (600, true), (700, true)] {
            let outcome = if good { Ok(Duration::from_millis(3)) } else { Err(anyhow::anyhow!("no")) };
            tally.add((at(ms), outcome));
        }
        assert_eq!((tally.count.gap, tally.count.answered, tally.count.failed), (600, 5, 1));
        tally.answered_at(at(2000));
        assert_eq!(tally.count.gap, 1300);
    }
}
