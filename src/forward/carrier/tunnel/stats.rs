//! Counters of the tunnels, as status and metrics tell them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::upgrade::{Refused, Rung};
use crate::forward::stats::lock;

/// Written by pools, which may share one; read by the status.
#[derive(Debug, Default)]
pub struct TunnelStats {
    /// Upgrades that succeeded.
    pub opened: AtomicU64,
    /// Connections that took a tunnel already there.
    pub reused: AtomicU64,
    /// Connections in tunnels now.
    pub leased: AtomicU64,
    /// Connections that had to share a tunnel because the number of tunnels is at its limit.
    pub shared: AtomicU64,
    /// Tunnels proven free by PINGs before they were used again.
    pub fenced: AtomicU64,
    /// Of these, those that did not pass.
    pub stuck: AtomicU64,
    /// Tunnels closed for age, use, or silence.
    pub recycled: AtomicU64,
    refused: Mutex<BTreeMap<u16, u64>>,
    /// One more than the number of the newest connection's rung; 0 before the first.
    rung: AtomicU8,
}

impl TunnelStats {
    /// Upgrades that failed, by HTTP status; 0 where no answer came.
    pub fn refused_by_status(&self) -> BTreeMap<u16, u64> {
        lock(&self.refused).clone()
    }

    /// The rung of the ladder by which the newest connection goes; none before the first.
    pub fn rung(&self) -> Option<Rung> {
        self.rung.load(Relaxed).checked_sub(1).map(Rung::of)
    }

    pub(super) fn carried(&self, rung: Rung) {
        self.rung.store(rung as u8 + 1, Relaxed);
    }

    pub(super) fn refused(&self, refused: &Refused) {
        let code = match refused {
            Refused::Status { code, .. } => *code,
            Refused::Lost(_) => 0,
        };
        *lock(&self.refused).entry(code).or_default() += 1;
    }

    /// All counters by name, for a report.
    pub fn by_name(&self) -> [(&'static str, u64); 7] {
        [
            ("opened", self.opened.load(Relaxed)),
            ("reused", self.reused.load(Relaxed)),
            ("leased", self.leased.load(Relaxed)),
            ("shared", self.shared.load(Relaxed)),
            ("fenced", self.fenced.load(Relaxed)),
            ("stuck", self.stuck.load(Relaxed)),
            ("recycled", self.recycled.load(Relaxed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rung_is_that_of_the_newest_connection_and_has_one_name() {
        let stats = TunnelStats::default();
        assert_eq!(stats.rung(), None);
        for rung in Rung::ALL {
            stats.carried(rung);
            assert_eq!(stats.rung(), Some(rung));
            assert_eq!(serde_json::to_value(rung).unwrap(), rung.name());
        }
    }
}
