//! A hundred thousand connections of every kind of end through one process: descriptors and memory stay as they were.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{LIMIT, Place, page};

const CLIENTS: usize = 4;
/// Connections of one client in one round.
const ROUND: usize = 5_000;
const ROUNDS: usize = 5;
/// What memory may grow by, in KiB: 0.2 KiB a connection, less than the smallest thing that one could leave behind.
const GROWTH: u64 = 16 * 1024;

/// Open descriptors, and resident memory in KiB, of a process.
fn held(pid: &str) -> (usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    (descriptors, line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

fn connect(at: SocketAddr, turn: usize) {
    let mut client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = String::new();
    match turn % 4 {
        // Leaves without a word.
        0 => {}
        // Leaves before the answer.
        1 => client.write_all(b"hello\n").unwrap(),
        // Ends first, and reads on.
        2 => {
            client.write_all(b"hello\n").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "first page");
        }
        _ => {
            client.write_all(b"hello\n").unwrap();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "first page");
        }
    }
}

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    let place = Place::of(super::Api::start(page("first page")));
    let at = place.start("");
    let pid = place.pid();
    let round = || {
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| (0..ROUND).for_each(|turn| connect(at, turn)));
            }
        });
        place.until("none open", |s| s["live"] == 0);
    };
    // Pools and tables have their size after the first round.
    round();
    let before = held(&pid);
    for _ in 1..ROUNDS {
        round();
    }
    let after = held(&pid);
    assert!(after.0 <= before.0 + 8, "descriptors: {} before, {} after", before.0, after.0);
    assert!(after.1 <= before.1 + GROWTH, "KiB: {} before, {} after", before.1, after.1);
    let status = place.status();
    assert_eq!(status["total"], CLIENTS * ROUND * ROUNDS);
    assert_eq!(status["failed"], 0, "{status:#}");
}
