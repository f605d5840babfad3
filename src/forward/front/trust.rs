//! Which endpoints the kernel may lead strangers to, by what our own probe met on the way there.
//!
//! Pure: time is handed in as milliseconds. One pass is enough for an endpoint that never failed; a refusal or two
//! other failures in a row end it, and then it must pass for a while without a break.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a probe met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It was taken.
    Passed,
    /// Nobody listens there: certain at once.
    Refused,
    /// No answer; it may have been one lost packet.
    Failed,
}

/// Failures in a row that end trust.
const FAILURES: u32 = 2;
/// Who failed must pass so long before it is trusted again, in milliseconds.
pub const CALM: u64 = 3_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    trusted: bool,
    failures: u32,
    /// It was trusted once and lost that.
    fell: bool,
    passing_since: Option<u64>,
}

/// What is known so far, by whatever is probed.
#[derive(Debug, Clone)]
pub struct Trust<K = SocketAddr>(BTreeMap<K, Record>);

impl<K: Ord + Clone> Default for Trust<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Trust<K> {
    /// Takes one probe, made at `now`.
    pub fn observe(&mut self, key: K, met: Met, now: u64) {
        let record = self.0.entry(key).or_default();
        if met == Met::Passed {
            let since = *record.passing_since.get_or_insert(now);
            record.failures = 0;
            record.trusted |= !record.fell || now.saturating_sub(since) >= CALM;
            record.fell &= !record.trusted;
            return;
        }
        record.passing_since = None;
        record.failures = record.failures.saturating_add(1);
        if met == Met::Refused || record.failures >= FAILURES {
            record.fell = true;
            record.trusted = false;
        }
    }

    /// Whether it may be led to.
    pub fn holds(&self, key: &K) -> bool {
        self.0.get(key).is_some_and(|r| r.trusted)
    }

    /// Whether it was probed at all, and is not in between two looks at a failure.
    pub fn is_decided(&self, key: &K) -> bool {
        self.0.get(key).is_some_and(|r| !(r.trusted && r.failures > 0))
    }

    /// Forgets what is no longer there.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_pass_is_enough_at_first_and_a_refusal_ends_it() {
        let mut trust = Trust::default();
        trust.observe(1, Met::Passed, 0);
        assert!(trust.holds(&1) && !trust.holds(&2));
        trust.observe(1, Met::Failed, 10);
        assert!(trust.holds(&1) && !trust.is_decided(&1));
        trust.observe(1, Met::Refused, 20);
        assert!(!trust.holds(&1));
        trust.observe(1, Met::Passed, 30);
        trust.observe(1, Met::Passed, 29 + CALM);
        assert!(!trust.holds(&1));
        trust.observe(1, Met::Passed, 30 + CALM);
        assert!(trust.holds(&1));
    }

    proptest! {
        /// Trust is never held right after two failures or a refusal, and never gained within the calm after a fall.
        #[test]
        fn no_trust_without_its_reason(steps in proptest::collection::vec((1u64..2_000, 0u8..3), 1..100)) {
            let mut trust = Trust::default();
            let (mut now, mut failed, mut fallen_at) = (0, 0, None);
            for (wait, kind) in steps {
                now += wait;
                let met = [Met::Passed, Met::Refused, Met::Failed][usize::from(kind)];
                let held = trust.holds(&());
                trust.observe((), met, now);
                failed = if met == Met::Passed { 0 } else { failed + 1 };
                if met == Met::Refused || failed >= FAILURES {
                    fallen_at = Some(now);
                    prop_assert!(!trust.holds(&()));
                }
                if let (false, true, Some(at)) = (held, trust.holds(&()), fallen_at) {
                    prop_assert!(now - at > CALM);
                }
            }
        }
    }
}
