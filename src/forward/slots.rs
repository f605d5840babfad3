//! 1024 slots that lead to backends: what a random number or a client's hash is looked up in.
//!
//! Pure, and without a past: the same backends give the same slots in whatever order, process and carrier they are met.
//!
//! Where any backend will do, all have the same share. Where clients stay with their pods, each slot has its own order
//! of preference over all backends there could be, and leads to the first of those there are (rendezvous hashing). So
//! a backend that comes or goes moves its own clients only, and who knows of fewer backends, as the kernel does, agrees
//! with who knows of all wherever it can. Shares are then even on the average only; no table can have all three.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::endpoints::Backend;
use super::jhash::{jhash, scale};

/// So many, that the shares of few backends differ little even by chance (of three by a twentieth), and a change of
/// them all is still written within milliseconds.
pub const SLOTS: usize = 1024;

/// Of the hash by which a client finds its slot. Never to be changed, or an update moves all clients.
pub const SEED: u32 = 0xb00c;

/// The table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(Arc<[Backend]>);

impl Slots {
    /// For whoever comes: equal shares.
    pub fn even(backends: &[Backend]) -> Self {
        let mut sorted = backends.to_vec();
        sorted.sort_unstable();
        if sorted.is_empty() { Self::default() } else { Self(sorted.into_iter().cycle().take(SLOTS).collect()) }
    }

    /// For clients that stay.
    pub fn by_client(backends: &[Backend]) -> Self {
        let first = |slot| backends.iter().max_by_key(|b| (preference(slot, b.id), **b)).copied();
        Self((0..SLOTS).map_while(first).collect())
    }

    /// Where one of them leads; nowhere without backends.
    pub fn at(&self, slot: usize) -> Option<Backend> {
        self.0.get(slot).copied()
    }

    /// All of them with what they lead to.
    pub fn iter(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        self.0.iter().map(|b| b.socket).enumerate()
    }

    /// Whether no slot leads anywhere.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The slot of a client, as the rules find it: from the address's bytes as they are in a packet.
pub fn slot_of(client: IpAddr) -> usize {
    let hash = match client {
        IpAddr::V4(ip) => jhash(&ip.octets(), SEED),
        IpAddr::V6(ip) => jhash(&ip.octets(), SEED),
    };
    scale(hash, SLOTS as u32) as usize
}

/// How much a slot prefers a backend; the most is first. Unlike those of [`jhash`] these numbers are our own affair, but
/// all processes must have the same ones.
pub fn preference(slot: usize, id: u64) -> u64 {
    // The finaliser of SplitMix64.
    let mut mixed = id ^ (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::endpoints::Endpoint;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn backend(id: u8) -> Backend {
        let uid = Some(format!("3f0c6a1e-0000-4000-8000-0000000000{id:02x}"));
        Endpoint { ip: IpAddr::from([10, 0, 0, id]), port: 80, pod: None, uid }.backend()
    }

    fn set(ids: &BTreeSet<u8>) -> Vec<Backend> {
        ids.iter().map(|id| backend(*id)).collect()
    }

    fn share(of: &Slots, backend: &Backend) -> usize {
        (0..SLOTS).filter(|slot| of.at(*slot) == Some(*backend)).count()
    }

    fn ids() -> impl Strategy<Value = BTreeSet<u8>> {
        proptest::collection::btree_set(any::<u8>(), 0..20)
    }

    proptest! {
        /// Neither kind knows an order or has a hole.
        #[test]
        fn the_same_backends_give_the_same_slots(ids in ids(), by in 0usize..20) {
            let there = set(&ids);
            let mut turned = there.clone();
            turned.rotate_left(by % there.len().max(1));
            for build in [Slots::even, Slots::by_client] {
                prop_assert_eq!(build(&there), build(&turned));
                prop_assert_eq!(build(&there).iter().count(), if ids.is_empty() { 0 } else { SLOTS });
                prop_assert!(build(&there).iter().all(|(_, to)| there.iter().any(|b| b.socket == to)));
            }
        }

        /// Anybody's slots: each backend has its share exactly.
        #[test]
        fn even_shares_are_equal(ids in ids()) {
            let there = set(&ids);
            let slots = Slots::even(&there);
            for backend in &there {
                let share = share(&slots, backend);
                prop_assert!((SLOTS / there.len()..=SLOTS.div_ceil(there.len())).contains(&share), "{}", share);
            }
        }

        /// Clients' slots: seven standard deviations of a fair draw, which is never one of some 10^10 times.
        #[test]
        fn shares_of_clients_differ_as_by_chance(ids in ids()) {
            let there = set(&ids);
            let slots = Slots::by_client(&there);
            let mean = SLOTS as f64 / there.len().max(1) as f64;
            for backend in &there {
                let far = (share(&slots, backend) as f64 - mean).abs();
                prop_assert!(far <= 7.0 * mean.sqrt(), "{} away from {}", far, mean);
            }
        }

        /// A slot changes hands only where its backend is gone, or a new one is preferred.
        #[test]
        fn only_clients_of_what_comes_and_goes_are_moved(before in ids(), after in ids()) {
            let (old, new) = (Slots::by_client(&set(&before)), Slots::by_client(&set(&after)));
            let (before, after) = (set(&before), set(&after));
            for slot in 0..SLOTS {
                if let (Some(from), Some(to)) = (old.at(slot), new.at(slot)) && from != to {
                    let had_to = !after.contains(&from)
                        || !before.contains(&to) && preference(slot, to.id) > preference(slot, from.id);
                    prop_assert!(had_to, "slot {} moved", slot);
                }
            }
        }

        /// Who knows of fewer backends agrees with who knows of all, but where he does not know the first.
        #[test]
        fn a_part_agrees_with_the_whole(ids in ids(), known in any::<u32>()) {
            let all = set(&ids);
            let part: Vec<Backend> =
                all.iter().enumerate().filter(|(at, _)| known & (1 << at) != 0).map(|(_, b)| *b).collect();
            let (whole, slots) = (Slots::by_client(&all), Slots::by_client(&part));
            for slot in 0..SLOTS {
                let first = whole.at(slot).filter(|b| part.contains(b));
                prop_assert!(first.is_none() || slots.at(slot) == first);
                let mut ranked = all.clone();
                ranked.sort_by_key(|b| std::cmp::Reverse(preference(slot, b.id)));
                prop_assert_eq!(slots.at(slot), ranked.into_iter().find(|b| part.contains(b)));
            }
        }
    }

    /// Neighbours are not led to one pod.
    #[test]
    fn neighbours_are_spread() {
        let there: Vec<Backend> = (1..=3).map(backend).collect();
        let slots = Slots::by_client(&there);
        let nets: [fn(u8) -> IpAddr; 2] =
            [|host| IpAddr::from([192, 0, 2, host]), |host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)])];
        for net in nets {
            for backend in &there {
                let clients = (0..=255).filter(|host| slots.at(slot_of(net(*host))) == Some(*backend)).count();
                assert!((50..=120).contains(&clients), "{clients} of 256");
            }
        }
    }

    /// An update must not move clients: these are where they were in the first version.
    #[test]
    fn slots_and_preferences_stay_what_they_are() {
        let slots: Vec<usize> =
            ["10.0.0.1", "192.0.2.77", "fd00::1"].iter().map(|ip| slot_of(ip.parse().expect("an address"))).collect();
        assert_eq!(slots, [127, 900, 376]);
        assert_eq!((preference(0, 0), backend(1).id), (0xe220_a839_7b1d_cdaf, 0xa050_b757_ca80_0fbd));
    }
}
