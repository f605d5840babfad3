//! 256 slots that lead to endpoints: what a random number or a client's hash is looked up in.
//!
//! Pure. When endpoints come and go only as many slots change hands as must: those of the lost ones, and of the others
//! no more than their surplus over an equal share. A client keeps its endpoint unless its own slot is among them.

use std::net::SocketAddr;

/// So many, that shares of few endpoints differ little and a hash needs one byte.
pub const SLOTS: usize = 256;

/// The table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(Vec<SocketAddr>);

impl Slots {
    /// Gives each endpoint its share.
    pub fn update(&mut self, endpoints: &[SocketAddr]) {
        if endpoints.is_empty() {
            self.0.clear();
            return;
        }
        let (share, more) = (SLOTS / endpoints.len(), SLOTS % endpoints.len());
        let mut room: Vec<usize> = (0..endpoints.len()).map(|at| share + usize::from(at < more)).collect();
        let mut kept: Vec<Option<SocketAddr>> = vec![None; SLOTS];
        for (slot, to) in self.iter() {
            if let Some(at) = endpoints.iter().position(|e| *e == to)
                && room[at] > 0
            {
                room[at] -= 1;
                kept[slot] = Some(to);
            }
        }
        let mut free = endpoints.iter().zip(&room).flat_map(|(e, room)| std::iter::repeat_n(*e, *room));
        self.0 = kept.into_iter().filter_map(|to| to.or_else(|| free.next())).collect();
    }

    /// The slots with what they lead to; none without endpoints.
    pub fn iter(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        self.0.iter().copied().enumerate()
    }

    /// Whether no slot leads anywhere.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ids: &std::collections::BTreeSet<u8>) -> Vec<SocketAddr> {
        ids.iter().map(|id| SocketAddr::from(([10, 0, 0, *id], 80))).collect()
    }

    proptest! {
        /// Every change: each endpoint has its share, all slots are full, and a slot changes hands only where its
        /// endpoint is lost or had more than its share.
        #[test]
        fn shares_are_equal_and_changes_are_small(
            rounds in proptest::collection::vec(proptest::collection::btree_set(0u8..40, 0..20), 1..8),
        ) {
            let mut slots = Slots::default();
            for ids in &rounds {
                let (before, now) = (slots.clone(), set(ids));
                slots.update(&now);
                prop_assert_eq!(slots.iter().count(), if now.is_empty() { 0 } else { SLOTS });
                let count = |of: &Slots, e: &SocketAddr| of.iter().filter(|(_, to)| to == e).count();
                for endpoint in &now {
                    let share = SLOTS / now.len();
                    prop_assert!((share..=share + 1).contains(&count(&slots, endpoint)));
                    let stayed = before.iter().zip(slots.iter()).filter(|(b, n)| b.1 == *endpoint && b == n).count();
                    prop_assert!(stayed >= count(&before, endpoint).min(share), "more slots moved than had to");
                }
            }
        }
    }
}
