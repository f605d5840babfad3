//! What is measured: the columns that can be asked for, and the figures each gives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of one transfer; eight at once share them.
pub const TRANSFER: u64 = 512 << 20;
/// Requests a second of the latency column: well below what the slowest row can answer.
pub const PACE: u32 = 2000;
/// New connections over which upgrades are counted.
pub const COUNTED: u64 = 10_000;
/// Connections of the latency column.
pub const PACED: usize = 16;

/// A measurement that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Column {
    Down1,
    Down8,
    Up1,
    Up8,
    Req1,
    Req16,
    Req64,
    Conn1,
    Conn4,
    Conn16,
    Latency,
    Upgrades,
    Rss1k,
    Rss10k,
}

impl Column {
    /// All of them, in the order they are measured in. Memory comes last: thousands of connections leave traces.
    pub const ALL: [Self; 14] = [
        Self::Down1,
        Self::Down8,
        Self::Up1,
        Self::Up8,
        Self::Req1,
        Self::Req16,
        Self::Req64,
        Self::Conn1,
        Self::Conn4,
        Self::Conn16,
        Self::Latency,
        Self::Upgrades,
        Self::Rss1k,
        Self::Rss10k,
    ];

    /// Whether bytes are moved in bulk: CPU time is counted over these.
    pub fn is_transfer(self) -> bool {
        matches!(self, Self::Down1 | Self::Down8 | Self::Up1 | Self::Up8)
    }

    /// Whether rounds do not change it: it is measured in the first ones only.
    pub fn is_steady(self) -> bool {
        matches!(self, Self::Upgrades | Self::Rss1k | Self::Rss10k)
    }
}

/// One figure of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    Down1,
    Down8,
    Up1,
    Up8,
    Cpu,
    Req1,
    Req16,
    Req64,
    Conn1,
    Conn4,
    Conn16,
    P50,
    P99,
    P999,
    Upgrades,
    Rss1k,
    Rss10k,
}

impl Figure {
    pub const ALL: [Self; 17] = [
        Self::Down1,
        Self::Down8,
        Self::Up1,
        Self::Up8,
        Self::Cpu,
        Self::Req1,
        Self::Req16,
        Self::Req64,
        Self::Conn1,
        Self::Conn4,
        Self::Conn16,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::Upgrades,
        Self::Rss1k,
        Self::Rss10k,
    ];

    /// Head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::Down1 => "download, 1",
            Self::Down8 => "download, 8",
            Self::Up1 => "upload, 1",
            Self::Up8 => "upload, 8",
            Self::Cpu => "CPU",
            Self::Req1 => "requests, 1",
            Self::Req16 => "requests, 16",
            Self::Req64 => "requests, 64",
            Self::Conn1 => "new conn., 1",
            Self::Conn4 => "new conn., 4",
            Self::Conn16 => "new conn., 16",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Upgrades => "upgrades for 10,000 conn.",
            Self::Rss1k => "memory, 1,000",
            Self::Rss10k => "memory, 10,000",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Down1 | Self::Down8 | Self::Up1 | Self::Up8 => "MB/s",
            Self::Cpu => "s/GB",
            Self::Req1 | Self::Req16 | Self::Req64 | Self::Conn1 | Self::Conn4 | Self::Conn16 => "1/s",
            Self::P50 | Self::P99 | Self::P999 => "µs",
            Self::Upgrades => "",
            Self::Rss1k | Self::Rss10k => "MB",
        }
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        !matches!(self, Self::Cpu | Self::P50 | Self::P99 | Self::P999 | Self::Upgrades | Self::Rss1k | Self::Rss10k)
    }
}

/// What a row showed: a value a round, none where the round gave none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub figures: BTreeMap<Figure, Vec<Option<f64>>>,
    /// Requests or connections that failed, in all rounds.
    pub failed: u64,
    /// What went wrong or was different, in words.
    pub notes: Vec<String>,
}

impl Row {
    /// Keeps a value of a round.
    pub fn put(&mut self, figure: Figure, round: usize, value: f64) {
        let values = self.figures.entry(figure).or_default();
        values.resize(values.len().max(round + 1), None);
        values[round] = Some(value);
    }

    /// Keeps a note once.
    pub fn note(&mut self, words: String) {
        if !self.notes.contains(&words) {
            self.notes.push(words);
        }
    }

    /// How many rounds have values.
    pub fn rounds(&self) -> usize {
        self.figures.values().map(Vec::len).max().unwrap_or_default()
    }

    /// The values there are.
    pub fn values(&self, figure: Figure) -> Vec<f64> {
        self.figures.get(&figure).into_iter().flatten().filter_map(|value| *value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_with_their_round() {
        let mut row = Row::default();
        row.put(Figure::P50, 2, 7.0);
        row.put(Figure::P50, 0, 5.0);
        assert_eq!(row.figures[&Figure::P50], [Some(5.0), None, Some(7.0)]);
        assert_eq!(row.values(Figure::P50), [5.0, 7.0]);
        assert!(row.values(Figure::Cpu).is_empty());
    }
}
