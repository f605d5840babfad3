//! `standin load`: the client end of a measurement. Few threads, epoll, no copy that is not needed; what it saw is
//! printed as one line of JSON.
//!
//! Every answer is read whole and must have the announced length; one that fails is counted and said, never left out.

mod engine;
mod tally;
mod wire;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use tally::Tally;

/// What is done once the connections stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Each connection fetches that many bytes.
    Download { bytes: u64 },
    /// Each connection sends that many bytes.
    Upload { bytes: u64 },
    /// Requests one after the other on connections that stay (closed loop).
    Requests { time: Duration },
    /// Connections one after the other, each with one request, closed by the client (closed loop).
    /// At most `count` of them.
    Connects { time: Duration, count: u64 },
    /// Requests at a fixed rate on connections that stay (open loop): the time of each counts from when it was due.
    Paced { time: Duration, rate: u32 },
    /// The connections stay, each after one request, until standard input ends.
    Idle,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Job {
    pub kind: Kind,
    pub address: SocketAddr,
    /// Asked for where the kind does not say what.
    pub path: String,
    pub connections: usize,
    pub threads: usize,
}

const USAGE: &str = "load download|upload|requests|connects|paced|idle ADDRESS:PORT [--connections N] [--bytes N] \
    [--seconds S] [--count N] [--rate N] [--path /P] [--threads N]";

/// Runs `load` with its arguments and prints what came of it; an idle one prints once its connections stand.
pub fn run(args: impl Iterator<Item = String>) -> Result<(), String> {
    let job = arguments(args)?;
    let tally = engine::run(&job, || {
        // Nobody wants more when it ends or cannot be read.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    })?;
    if job.kind != Kind::Idle {
        print(&tally);
    }
    Ok(())
}

/// A line of the result.
#[expect(clippy::print_stdout, reason = "the result of a command")]
fn print(tally: &Tally) {
    println!("{}", tally.json());
}

fn arguments(mut args: impl Iterator<Item = String>) -> Result<Job, String> {
    let kind = args.next().ok_or(USAGE)?;
    let address = args.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?;
    let (mut connections, mut bytes, mut seconds, mut rate, mut threads) = (1, 512 << 20, 1.0, 1000, None);
    let mut count = u64::MAX;
    let mut path = "/".to_owned();
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag}: not a number: {value}"));
        match flag.as_str() {
            "--connections" => connections = number()?.max(1) as usize,
            "--bytes" => bytes = number()?.max(1),
            "--seconds" => seconds = value.parse::<f64>().map_err(|_| format!("{flag}: not a number: {value}"))?,
            "--count" => count = number()?,
            "--rate" => rate = number()?.clamp(1, 1_000_000) as u32,
            "--threads" => threads = Some(number()?.max(1) as usize),
            "--path" => path = value,
            _ => return Err(format!("unknown flag {flag}\n{USAGE}")),
        }
    }
    let time = Duration::try_from_secs_f64(seconds).map_err(|e| format!("--seconds: {e}"))?;
    let kind = match kind.as_str() {
        "download" => Kind::Download { bytes },
        "upload" => Kind::Upload { bytes },
        "requests" => Kind::Requests { time },
        "connects" => Kind::Connects { time, count },
        "paced" => Kind::Paced { time, rate },
        "idle" => Kind::Idle,
        _ => return Err(USAGE.to_owned()),
    };
    let threads = if kind == Kind::Idle { 1 } else { threads.unwrap_or(1).min(connections) };
    Ok(Job { kind, address, path, connections, threads })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_are_read_and_junk_is_not() {
        let read = |line: &str| arguments(line.split(' ').map(str::to_owned));
        let job = read("paced 127.0.0.1:1 --rate 2000 --seconds 1.5 --connections 4 --threads 9").unwrap();
        assert_eq!(job.kind, Kind::Paced { time: Duration::from_millis(1500), rate: 2000 });
        assert_eq!((job.connections, job.threads), (4, 4));
        for junk in
            ["", "requests", "requests x", "dance 127.0.0.1:1", "idle 127.0.0.1:1 --rate", "idle 127.0.0.1:1 -x 1"]
        {
            assert!(read(junk).is_err(), "{junk:?}");
        }
    }
}
