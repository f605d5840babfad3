//! New connections at a steady rate, counted: what a rolling update costs those who load the page meanwhile.
//!
//! Run inside the client's network namespace, as a process of its own. It says `ready` once the first requests are
//! answered, goes on until its standard input ends, and then prints the count as JSON.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// What one request may take before it counts as failed. A browser's user waits about as long.
const LIMIT: Duration = Duration::from_secs(3);
/// Answers until the load counts as begun.
const WARM: u32 = 10;

#[derive(clap::Args)]
pub struct Args {
    /// New connections a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// The address dialled
    address: SocketAddr,
    /// The path asked for
    #[arg(default_value = "/productpage")]
    path: String,
    /// What the right answer holds
    #[arg(long, default_value = e2e::page::TITLE)]
    marker: String,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub answered: u32,
    pub failed: u32,
    /// The slowest answer, in milliseconds.
    pub slowest: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
}

impl Count {
    fn add(&mut self, outcome: Result<Duration>) {
        match outcome {
            Ok(took) => {
                self.answered += 1;
                self.slowest = self.slowest.max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < 5 {
                    self.failures.push(format!("{error:#}"));
                }
            }
        }
    }
}

/// Loads until standard input ends.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        // Reading fails or ends: either way nobody wants more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    let count = load(args, &ended, || {
        println!("ready");
        let _ = std::io::stdout().flush();
    });
    println!("{}", serde_json::to_string(&count)?);
    Ok(ExitCode::SUCCESS)
}

/// Begins `rate` requests a second, however long each takes, until told to end; then waits for those begun.
fn load(args: &Args, ended: &mpsc::Receiver<()>, ready: impl FnOnce()) -> Count {
    let mut count = Count::default();
    let mut ready = Some(ready);
    let (send, outcomes) = mpsc::channel();
    let start = Instant::now();
    let interval = Duration::from_secs(1) / args.rate;
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
            scope.spawn(move || send.send(request(args)));
            for outcome in outcomes.try_iter() {
                count.add(outcome);
            }
            if let Some(tell) = ready.take_if(|_| count.answered + count.failed >= WARM) {
                tell();
            }
        }
        drop(send);
        for outcome in outcomes.iter() {
            count.add(outcome);
        }
    });
    count
}

/// One request on a connection of its own, read to its end.
fn request(args: &Args) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&args.address, LIMIT).context("cannot connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let question = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", args.path, args.address);
    stream.write_all(question.as_bytes()).context("cannot send")?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        match stream.read(&mut piece).with_context(|| format!("broken after {} bytes", answer.len()))? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
        ensure!(start.elapsed() < LIMIT, "not done after {} s", LIMIT.as_secs());
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("{status}");
    }
    ensure!(body.contains(&args.marker), "an answer of something else");
    Ok(start.elapsed())
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
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nright");
                }
            }
        });
        address
    }

    #[test]
    fn every_connection_is_counted_and_a_cut_one_as_failed() {
        let (address, (end, ended)) = (flaky(), mpsc::channel());
        let args = |marker: &str| Args { rate: 200, address, path: "/".into(), marker: marker.into() };
        let count = load(&args("right"), &ended, || end.send(()).unwrap());
        assert!(count.answered + count.failed >= WARM, "{count:?}");
        assert!(count.failed >= 3 && count.answered >= 2 * count.failed - 2, "{count:?}");
        assert!(count.failures[0].contains("no answer"), "{count:?}");
        assert!(request(&args("wrong")).is_err());
    }

    #[test]
    fn a_closed_port_fails() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let args = Args { rate: 1, address, path: "/".into(), marker: String::new() };
        assert!(request(&args).unwrap_err().to_string().contains("cannot connect"));
    }
}
