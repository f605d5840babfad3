//! Routes that only tests use: bodies of a given size, slow answers, resets, a sink for uploads.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::http::{Reply, Request};

/// The test pattern repeats 0..=250. 251 is prime, so a lost, doubled or moved block of any usual
/// size shows.
pub const PERIOD: usize = 251;
const BLOCK: usize = PERIOD * 1024;

/// Answers a path under `/test/`.
pub fn answer(request: &Request) -> Option<Reply> {
    let reply = match request.path.as_str() {
        "/test/body" => Reply::Pattern { bytes: request.number("mib").unwrap_or(1) * 1024 * 1024 },
        "/test/slow" => {
            thread::sleep(Duration::from_millis(request.number("ms").unwrap_or(1000)));
            json(200, "{\"slow\":true}\n".to_owned())
        }
        "/test/reset" => Reply::Reset { after: request.number("after").unwrap_or(0) },
        "/test/sink" if matches!(request.method.as_str(), "POST" | "PUT") => {
            json(200, format!("{{\"bytes\":{}}}\n", request.body_bytes))
        }
        "/test/sink" => json(405, "{\"error\":\"POST only\"}\n".to_owned()),
        _ => return None,
    };
    Some(reply)
}

/// Writes that many bytes of the test pattern.
pub fn write_pattern(to: &mut impl Write, bytes: u64) -> io::Result<()> {
    let block: Vec<u8> = (0..BLOCK).map(|i| (i % PERIOD) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let count = left.min(BLOCK as u64) as usize;
        to.write_all(&block[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn json(status: u16, body: String) -> Reply {
    Reply::Text { status, kind: "application/json", body }
}
