//! Waiting for a condition: polled, with a deadline, and with what was seen last in the error.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Polls until the probe gives a value. A probe's error is no end: it is what the failure reports.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(20);
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(e) if Instant::now() > end => {
                return Err(e).with_context(|| format!("not within {limit:?}: {what}"));
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_value_ends_the_wait_and_the_last_error_is_told() {
        let mut left = 3;
        let value = until("three", Duration::from_secs(5), || {
            left -= 1;
            anyhow::ensure!(left == 0, "still {left}");
            Ok("done")
        });
        assert_eq!(value.unwrap(), "done");
        let never = || -> Result<()> { anyhow::bail!("no") };
        let error = until("never", Duration::ZERO, never).unwrap_err();
        assert_eq!(format!("{error:#}"), "not within 0ns: never: no");
    }
}
