//! Counters of the tunnels, as status and metrics tell them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::upgrade::Refused;
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
}

impl TunnelStats {
    /// Upgrades that failed, by HTTP status; 0 where no answer came.
    pub fn refused_by_status(&self) -> BTreeMap<u16, u64> {
        lock(&self.refused).clone()
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
