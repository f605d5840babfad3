//! What a load saw: counted, and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

/// Failures kept in words; the rest are counted.
const WORDS: usize = 5;

/// What came of a job, or of one thread's part of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// What was measured, from the first byte to the last.
    pub time: Duration,
    /// Bytes of bodies, in the direction that was measured.
    pub bytes: u64,
    pub answers: u64,
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// The time of each answer, in nanoseconds.
    pub times: Vec<u64>,
    /// Connections that stood, each after an answer.
    pub held: u64,
}

impl Tally {
    pub fn fail(&mut self, words: String) {
        self.failed += 1;
        if self.failures.len() < WORDS {
            self.failures.push(words);
        }
    }

    pub fn answer(&mut self, took: Duration) {
        self.answers += 1;
        self.times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Two threads' parts as one.
    pub fn join(mut self, other: Self) -> Self {
        self.time = self.time.max(other.time);
        self.bytes += other.bytes;
        self.answers += other.answers;
        self.failed += other.failed;
        self.held += other.held;
        self.failures.extend(other.failures);
        self.failures.truncate(WORDS);
        self.times.extend(other.times);
        self
    }

    /// `quantilesUs` are of the answers' times, by nearest rank.
    pub fn json(&self) -> Value {
        let mut times = self.times.clone();
        times.sort_unstable();
        let rank = |share: f64| {
            let index = (share * times.len() as f64).ceil() as usize;
            times.get(index.saturating_sub(1)).map(|ns| *ns as f64 / 1000.0)
        };
        json!({
            "seconds": self.time.as_secs_f64(),
            "bytes": self.bytes,
            "answers": self.answers,
            "failed": self.failed,
            "failures": self.failures,
            "held": self.held,
            "quantilesUs": {"p50": rank(0.5), "p99": rank(0.99), "p999": rank(0.999)},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank_and_failures_are_bounded() {
        let mut one = Tally::default();
        let mut other = Tally::default();
        for ms in 1..=500 {
            one.answer(Duration::from_millis(ms));
            other.answer(Duration::from_millis(500 + ms));
            other.fail("x".into());
        }
        let json = one.join(other).json();
        assert_eq!(json["quantilesUs"], json!({"p50": 500_000.0, "p99": 990_000.0, "p999": 999_000.0}));
        assert_eq!((&json["answers"], &json["failed"]), (&json!(1000), &json!(500)));
        assert_eq!(json["failures"].as_array().map(Vec::len), Some(WORDS));
        assert_eq!(Tally::default().json()["quantilesUs"]["p99"], Value::Null);
    }
}
