//! Which endpoint the next connection goes to, and by which way.
//!
//! Pure: the clock and the dice are handed in. Power of two choices by live connections, among the best ways there are:
//! direct before tunnel, what worked before what failed just now. A failed way is shunned for a while, never for good,
//! and taken all the same where nothing else is left.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::Endpoint;

/// How bytes reach the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// To the pod's IP.
    Direct,
    /// Through the API server.
    Tunnel,
}

/// One way to one endpoint. It holds on to the set it was picked from instead of copying names around.
#[derive(Debug, Clone)]
pub struct Choice {
    set: Arc<[Endpoint]>,
    index: usize,
    pub way: Way,
}

impl Choice {
    /// `set[index]` by that way; none where there is no such endpoint.
    pub fn new(set: &Arc<[Endpoint]>, index: usize, way: Way) -> Option<Self> {
        (index < set.len()).then(|| Self { set: set.clone(), index, way })
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.set[self.index]
    }
}

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        self.way == other.way && self.endpoint() == other.endpoint()
    }
}

/// First shunning after a failed dial, in milliseconds; doubled by each further one.
const SHUN_FIRST: u64 = 1_000;
/// Longest shunning, in milliseconds.
const SHUN_LONGEST: u64 = 30_000;
/// Shunning of a way that leads nowhere: trying it would cost a connection its time. A scout tries it instead and ends
/// this early.
const SHUN_UNREACHABLE: u64 = 600_000;

#[derive(Debug, Default, Clone)]
struct Seat {
    live: u64,
    /// Failed dials in a row, and until when the way is shunned (milliseconds).
    failures: BTreeMap<Way, (u32, u64)>,
}

/// What is known of each endpoint so far.
#[derive(Debug, Default, Clone)]
pub struct Balancer {
    seats: BTreeMap<(IpAddr, u16), Seat>,
}

impl Balancer {
    /// Picks among `set` × `ways` what was not tried yet for this connection. `dice` is any random number.
    pub fn pick(&self, set: &Arc<[Endpoint]>, ways: &[Way], tried: &[Choice], now: u64, dice: u64) -> Option<Choice> {
        let ranked = || self.ranked(set, ways, tried, now);
        let best = ranked().map(|(rank, _)| rank).min()?;
        let of_best = || ranked().filter(|(rank, _)| *rank == best).map(|(_, index)| index);
        let count = of_best().count() as u64;
        let first = dice % count;
        // The second is another one wherever there are two.
        let second = (first + 1 + (dice / count) % (count - 1).max(1)) % count;
        let first = of_best().nth(first as usize)?;
        let second = of_best().nth(second as usize)?;
        let index = if self.live(&set[second]) < self.live(&set[first]) { second } else { first };
        Choice::new(set, index, best.1)
    }

    /// The same for a client that has a pod of its own: by the best ways there are, the endpoint that is nearest to it.
    pub fn pick_nearest<N: Ord>(
        &self,
        set: &Arc<[Endpoint]>,
        ways: &[Way],
        tried: &[Choice],
        now: u64,
        nearness: impl Fn(&Endpoint) -> N,
    ) -> Option<Choice> {
        let ranked = || self.ranked(set, ways, tried, now);
        let best = ranked().map(|(rank, _)| rank).min()?;
        let of_best = ranked().filter(|(rank, _)| *rank == best).map(|(_, index)| index);
        Choice::new(set, of_best.max_by_key(|index| nearness(&set[*index]))?, best.1)
    }

    /// All there is to pick from, as indices of `set`, with what makes one better than another: the less the better.
    fn ranked(
        &self,
        set: &[Endpoint],
        ways: &[Way],
        tried: &[Choice],
        now: u64,
    ) -> impl Iterator<Item = ((bool, Way), usize)> {
        let is_tried = |e: &Endpoint, way: Way| tried.iter().any(|t| t.way == way && t.endpoint() == e);
        set.iter().enumerate().flat_map(move |(index, endpoint)| {
            ways.iter().filter_map(move |&way| {
                let open = !is_tried(endpoint, way) && (way != Way::Tunnel || endpoint.pod.is_some());
                open.then(|| ((self.is_shunned(endpoint, way, now), way), index))
            })
        })
    }

    /// Live connections of an endpoint.
    pub fn live(&self, endpoint: &Endpoint) -> u64 {
        self.seats.get(&key(endpoint)).map_or(0, |s| s.live)
    }

    /// A connection goes there now.
    pub fn opened(&mut self, endpoint: &Endpoint) {
        self.seats.entry(key(endpoint)).or_default().live += 1;
    }

    /// It ended, well or not.
    pub fn closed(&mut self, endpoint: &Endpoint) {
        if let Some(seat) = self.seats.get_mut(&key(endpoint)) {
            seat.live = seat.live.saturating_sub(1);
        }
    }

    /// That way could not be opened.
    pub fn failed(&mut self, endpoint: &Endpoint, way: Way, now: u64) {
        let entry = self.seats.entry(key(endpoint)).or_default().failures.entry(way).or_default();
        let shun = SHUN_FIRST.saturating_mul(1 << entry.0.min(6)).min(SHUN_LONGEST);
        *entry = (entry.0.saturating_add(1), now + shun);
    }

    /// That way leads nowhere from here: no answer, or no route.
    pub fn unreachable(&mut self, endpoint: &Endpoint, way: Way, now: u64) {
        let entry = self.seats.entry(key(endpoint)).or_default().failures.entry(way).or_default();
        *entry = (entry.0.saturating_add(1), now + SHUN_UNREACHABLE);
    }

    /// That way carries bytes.
    pub fn worked(&mut self, endpoint: &Endpoint, way: Way) {
        if let Some(seat) = self.seats.get_mut(&key(endpoint)) {
            seat.failures.remove(&way);
        }
    }

    /// Forgets endpoints that are no longer there and have no connection left.
    pub fn retain(&mut self, set: &[Endpoint]) {
        self.seats.retain(|k, seat| seat.live > 0 || set.iter().any(|e| key(e) == *k));
    }

    /// Whether a way is shunned at this time.
    pub fn is_shunned(&self, endpoint: &Endpoint, way: Way, now: u64) -> bool {
        self.seats.get(&key(endpoint)).and_then(|s| s.failures.get(&way)).is_some_and(|(_, until)| *until > now)
    }
}

fn key(endpoint: &Endpoint) -> (IpAddr, u16) {
    (endpoint.ip, endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(id: u8) -> Endpoint {
        Endpoint { ip: IpAddr::from([10, 0, 0, id]), port: 80, pod: Some(format!("p{id}")), uid: None }
    }

    fn pods(ids: &[u8]) -> Arc<[Endpoint]> {
        ids.iter().map(|id| endpoint(*id)).collect()
    }

    /// What was picked, in short.
    fn picked(choice: Option<Choice>) -> Option<(Endpoint, Way)> {
        choice.map(|c| (c.endpoint().clone(), c.way))
    }

    const BOTH: [Way; 2] = [Way::Direct, Way::Tunnel];

    #[test]
    fn a_pod_that_listens_on_loopback_only_is_reached_by_tunnel() {
        let mut balancer = Balancer::default();
        let set = pods(&[1]);
        assert_eq!(picked(balancer.pick(&set, &BOTH, &[], 0, 7)), Some((endpoint(1), Way::Direct)));
        balancer.failed(&set[0], Way::Direct, 0);
        assert_eq!(picked(balancer.pick(&set, &BOTH, &[], 999, 7)), Some((endpoint(1), Way::Tunnel)));
        assert_eq!(picked(balancer.pick(&set, &BOTH, &[], 1_000, 7)), Some((endpoint(1), Way::Direct)));
        assert_eq!(picked(balancer.pick(&set, &[Way::Direct], &[], 0, 7)), Some((endpoint(1), Way::Direct)));
    }

    #[test]
    fn another_pod_is_preferred_to_a_tunnel() {
        let mut balancer = Balancer::default();
        let set = pods(&[1, 2]);
        balancer.failed(&set[0], Way::Direct, 0);
        for dice in 0..50 {
            assert_eq!(picked(balancer.pick(&set, &BOTH, &[], 5, dice)), Some((endpoint(2), Way::Direct)));
        }
    }

    #[test]
    fn a_way_that_leads_nowhere_is_left_to_the_scout() {
        let mut balancer = Balancer::default();
        let set = pods(&[1]);
        balancer.unreachable(&set[0], Way::Direct, 0);
        assert_eq!(balancer.pick(&set, &BOTH, &[], 60_000, 0).map(|c| c.way), Some(Way::Tunnel));
        balancer.worked(&set[0], Way::Direct);
        assert_eq!(balancer.pick(&set, &BOTH, &[], 60_000, 0).map(|c| c.way), Some(Way::Direct));
    }

    #[test]
    fn shunning_doubles_up_to_its_limit() {
        let mut balancer = Balancer::default();
        let set = pods(&[1]);
        for _ in 0..40 {
            balancer.failed(&set[0], Way::Direct, 0);
        }
        assert_eq!(balancer.pick(&set, &BOTH, &[], 29_999, 0).map(|c| c.way), Some(Way::Tunnel));
        assert_eq!(balancer.pick(&set, &BOTH, &[], 30_000, 0).map(|c| c.way), Some(Way::Direct));
    }

    #[test]
    fn an_endpoint_without_pod_has_no_tunnel() {
        let set: Arc<[Endpoint]> = [Endpoint { pod: None, ..endpoint(1) }].into();
        assert_eq!(Balancer::default().pick(&set, &[Way::Tunnel], &[], 0, 0), None);
    }

    #[test]
    fn a_client_goes_to_the_next_nearest_only_while_its_own_pod_is_shunned_or_tried() {
        let mut balancer = Balancer::default();
        let set = pods(&[1, 2, 3]);
        let near = |e: &Endpoint| e.ip;
        let pick =
            |balancer: &Balancer, tried: &[Choice], now| picked(balancer.pick_nearest(&set, &BOTH, tried, now, near));
        // However many it has already.
        for _ in 0..9 {
            balancer.opened(&set[2]);
        }
        assert_eq!(pick(&balancer, &[], 0), Some((endpoint(3), Way::Direct)));
        let tried = balancer.pick_nearest(&set, &BOTH, &[], 0, near);
        assert_eq!(pick(&balancer, tried.as_slice(), 0), Some((endpoint(2), Way::Direct)));
        balancer.failed(&set[2], Way::Direct, 0);
        // As with the rules, which know no tunnel: another pod is better than one.
        assert_eq!(pick(&balancer, &[], 999), Some((endpoint(2), Way::Direct)));
        assert_eq!(pick(&balancer, &[], 1_000), Some((endpoint(3), Way::Direct)));
        // Where no pod can be dialled, all are reached by tunnels.
        for endpoint in set.iter() {
            balancer.unreachable(endpoint, Way::Direct, 1_000);
        }
        assert_eq!(pick(&balancer, &[], 1_000), Some((endpoint(3), Way::Tunnel)));
    }

    proptest! {
        /// Every choice is tried once before there is none left, whatever failed before.
        #[test]
        fn all_choices_come_up_once(
            ids in proptest::collection::btree_set(0u8..8, 0..6),
            failed in proptest::collection::vec((0u8..8, any::<bool>(), 0u64..60_000), 0..12),
            now in 0u64..60_000,
            mut dice: u64,
        ) {
            let set: Arc<[Endpoint]> = ids.iter().map(|i| endpoint(*i)).collect();
            let mut balancer = Balancer::default();
            for (id, direct, at) in failed {
                balancer.failed(&endpoint(id), if direct { Way::Direct } else { Way::Tunnel }, at);
            }
            let mut tried = Vec::new();
            while let Some(choice) = balancer.pick(&set, &BOTH, &tried, now, dice) {
                prop_assert!(!tried.contains(&choice));
                prop_assert!(set.contains(choice.endpoint()));
                tried.push(choice);
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            prop_assert_eq!(tried.len(), set.len() * 2);
        }

        /// Two choices keep the load even: nobody has far more than his share.
        #[test]
        fn the_load_stays_even(seed: u64) {
            let set: Arc<[Endpoint]> = (0..4).map(endpoint).collect();
            let mut balancer = Balancer::default();
            let mut dice = seed;
            for _ in 0..400 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let choice = balancer.pick(&set, &BOTH, &[], 0, dice >> 16);
                prop_assert!(choice.is_some());
                balancer.opened(choice.as_ref().map_or(&set[0], Choice::endpoint));
            }
            for endpoint in set.iter() {
                prop_assert!(balancer.live(endpoint).abs_diff(100) <= 20, "{:?}", balancer);
            }
        }
    }
}
