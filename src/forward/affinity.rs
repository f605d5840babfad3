//! sessionAffinity ClientIP: which endpoint a client was led to, for as long as the Service says.
//!
//! Pure: the clock is handed in. The time begins anew with each connection, as with kube-proxy.

use std::collections::HashMap;
use std::net::IpAddr;

use super::endpoints::Endpoint;

/// Clients remembered at most. When there are more, those that were away longest are forgotten.
const MOST: usize = 65_536;

/// Who goes where.
#[derive(Debug, Default)]
pub struct Affinity {
    clients: HashMap<(IpAddr, usize), Bond>,
}

#[derive(Debug)]
struct Bond {
    ip: IpAddr,
    port: u16,
    /// Milliseconds.
    used: u64,
}

impl Affinity {
    /// The endpoint in `set` that a client belongs to at this time (milliseconds), for a Service with this timeout in
    /// seconds.
    pub fn of(&self, client: IpAddr, pair: usize, set: &[Endpoint], timeout: u32, now: u64) -> Option<usize> {
        let bond = self.clients.get(&(client, pair)).filter(|b| !b.is_over(timeout, now))?;
        set.iter().position(|e| e.ip == bond.ip && e.port == bond.port)
    }

    /// A client was led there.
    pub fn bind(&mut self, client: IpAddr, pair: usize, endpoint: &Endpoint, timeout: u32, now: u64) {
        if self.clients.len() >= MOST && !self.clients.contains_key(&(client, pair)) {
            self.make_room(timeout, now);
        }
        self.clients.insert((client, pair), Bond { ip: endpoint.ip, port: endpoint.port, used: now });
    }

    fn make_room(&mut self, timeout: u32, now: u64) {
        self.clients.retain(|_, b| !b.is_over(timeout, now));
        if self.clients.len() >= MOST {
            let mut ages: Vec<u64> = self.clients.values().map(|b| b.used).collect();
            let (_, &mut middle, _) = ages.select_nth_unstable(MOST / 2);
            self.clients.retain(|_, b| b.used > middle);
        }
    }
}

impl Bond {
    fn is_over(&self, timeout: u32, now: u64) -> bool {
        now.saturating_sub(self.used) > u64::from(timeout) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u8) -> Endpoint {
        Endpoint { ip: IpAddr::from([10, 0, 0, id]), port: 80, pod: None, uid: None }
    }

    fn client(id: u32) -> IpAddr {
        IpAddr::from(id.to_be_bytes())
    }

    #[test]
    fn a_client_stays_until_its_time_is_over_or_its_endpoint_is_gone() {
        let set = [endpoint(1), endpoint(2)];
        let mut affinity = Affinity::default();
        assert_eq!(affinity.of(client(1), 0, &set, 10, 0), None);
        affinity.bind(client(1), 0, &set[1], 10, 0);
        assert_eq!(affinity.of(client(1), 0, &set, 10, 10_000), Some(1));
        assert_eq!(affinity.of(client(1), 0, &set, 10, 10_001), None);
        assert_eq!(affinity.of(client(1), 0, &set[..1], 10, 0), None);
        assert_eq!(affinity.of(client(1), 1, &set, 10, 0), None);
        assert_eq!(affinity.of(client(2), 0, &set, 10, 0), None);
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let set = [endpoint(1)];
        let mut affinity = Affinity::default();
        for id in 0..100_000u32 {
            affinity.bind(client(id), 0, &set[0], 1_000_000, u64::from(id));
        }
        assert!(affinity.clients.len() <= MOST);
        assert_eq!(affinity.of(client(99_999), 0, &set, 1_000_000, 100_000), Some(0));
        assert_eq!(affinity.of(client(0), 0, &set, 1_000_000, 100_000), None);
    }
}
