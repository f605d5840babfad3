//! When a standby steps in front of the NodePort, and when it steps back.
//!
//! Pure: time is handed in as milliseconds. In front when the probe fails twice in a row (once is enough at the start),
//! back after it passed for a while without a break. Who had to step in again soon after stepping back waits longer
//! the next time, so that a NodePort that comes and goes does not make the path flap.

use serde::{Deserialize, Serialize};

/// Where our rules stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// The NodePort is left to kube-proxy.
    Behind,
    /// Our rules lead the NodePort to the listener.
    Front,
}

/// Failures in a row that put it in front.
const FAILURES: u32 = 2;
/// The NodePort must pass so long before it is left alone again, in milliseconds.
pub const CALM: u64 = 5_000;
/// The longest such time.
pub const LONGEST_CALM: u64 = 60_000;
/// Stepping in again within this time after stepping back doubles it.
const SOON: u64 = 60_000;

/// The state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    position: Position,
    failures: u32,
    /// Since when the probe passes without a break.
    passing_since: Option<u64>,
    stepped_back: Option<u64>,
    calm: u64,
}

impl Default for Standby {
    fn default() -> Self {
        // One failure short: the first probe alone decides.
        Self { position: Position::Behind, failures: FAILURES - 1, passing_since: None, stepped_back: None, calm: CALM }
    }
}

impl Standby {
    /// Where it stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The NodePort is known to be broken without a probe.
    pub fn certain(&mut self, now: u64) -> Position {
        self.failures = self.failures.max(FAILURES - 1);
        self.observe(now, false)
    }

    /// Takes one probe of the NodePort itself, made at `now`.
    pub fn observe(&mut self, now: u64, passed: bool) -> Position {
        if passed {
            self.failures = 0;
            let since = *self.passing_since.get_or_insert(now);
            if self.position == Position::Front && now.saturating_sub(since) >= self.calm {
                self.position = Position::Behind;
                self.stepped_back = Some(now);
            }
        } else {
            self.failures = self.failures.saturating_add(1);
            self.passing_since = None;
            if self.position == Position::Behind && self.failures >= FAILURES {
                self.position = Position::Front;
                self.calm = match self.stepped_back {
                    Some(then) if now.saturating_sub(then) <= SOON => (self.calm * 2).min(LONGEST_CALM),
                    _ => CALM,
                };
            }
        }
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn play(standby: &mut Standby, probes: &[(u64, bool)]) -> Vec<Position> {
        probes.iter().map(|(now, passed)| standby.observe(*now, *passed)).collect()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(Standby::default().observe(0, false), Position::Front);
        assert_eq!(Standby::default().observe(0, true), Position::Behind);
    }

    #[test]
    fn later_two_failures_in_a_row_are_needed() {
        use Position::{Behind, Front};
        let mut standby = Standby::default();
        let probes = [(0, true), (1, false), (2, true), (3, false), (4, false)];
        assert_eq!(play(&mut standby, &probes), [Behind, Behind, Behind, Behind, Front]);
    }

    #[test]
    fn what_is_certain_needs_no_second_look() {
        let mut standby = Standby::default();
        assert_eq!(standby.observe(0, true), Position::Behind);
        assert_eq!(standby.certain(1), Position::Front);
    }

    #[test]
    fn it_steps_back_after_calm_and_waits_longer_after_a_relapse() {
        use Position::{Behind, Front};
        let mut standby = Standby::default();
        assert_eq!(
            play(&mut standby, &[(0, false), (1_000, true), (5_999, true), (6_000, true)]),
            [Front, Front, Front, Behind]
        );
        assert_eq!(play(&mut standby, &[(7_000, false), (8_000, false)]), [Behind, Front]);
        assert_eq!(play(&mut standby, &[(9_000, true), (18_999, true), (19_000, true)]), [Front, Front, Behind]);
    }

    proptest! {
        /// Whatever the probes say: front only after enough failures in a row, back only after a calm of passes.
        #[test]
        fn no_step_without_its_reason(steps in proptest::collection::vec((1u64..3_000, any::<bool>()), 1..200)) {
            let mut standby = Standby::default();
            let (mut now, mut failed, mut passing) = (0, FAILURES - 1, None);
            for (wait, passed) in steps {
                now += wait;
                let before = standby.position();
                let after = standby.observe(now, passed);
                if passed {
                    failed = 0;
                    passing.get_or_insert(now);
                } else {
                    failed += 1;
                    passing = None;
                }
                match (before, after) {
                    (Position::Behind, Position::Front) => prop_assert!(failed >= FAILURES),
                    (Position::Front, Position::Behind) => {
                        prop_assert!(passing.is_some_and(|since| now - since >= CALM));
                    }
                    (Position::Behind, Position::Behind) => prop_assert!(failed < FAILURES),
                    (Position::Front, Position::Front) => {
                        prop_assert!(passing.is_none_or(|since| now - since < LONGEST_CALM));
                    }
                }
            }
        }
    }
}
