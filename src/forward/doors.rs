//! Who is let in, and on what terms: ranges of addresses, limits on open connections in all and by client.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use super::spec::{Limits, Spec};
use super::stats::lock;
use super::wait_page::{self, Words};
use crate::i18n::say;
use crate::model::Text;

/// Locks over which clients are spread, so that data threads seldom meet.
const SHARDS: usize = 16;
/// What strangers cause is said in the log, and the next time not before so many milliseconds: they must not be able to
/// push everything else out of it.
const SAY_AGAIN: u64 = 1_000;

/// What the order says of each connection.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    pub limits: Limits,
    /// Empty: everybody.
    pub allow: Vec<IpNet>,
    /// Pods are told the client's address.
    pub proxy_protocol: bool,
    /// The answer to a browser that waits for a pod. None: it waits like everybody else.
    pub wait_page: Option<Arc<[u8]>>,
}

impl Terms {
    /// Of an order.
    pub fn of(spec: &Spec) -> Self {
        Self {
            limits: spec.limits,
            allow: spec.allow.clone(),
            proxy_protocol: spec.proxy_protocol,
            wait_page: spec.wait_page.then(|| page(spec).into()),
        }
    }

    fn allows(&self, client: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|range| range.contains(&client))
    }
}

fn page(spec: &Spec) -> Vec<u8> {
    let word = |key: &'static str| say(spec.locale, &Text::new(key).with("target", spec.target()));
    wait_page::answer(&Words {
        language: spec.locale.tag(),
        title: word("wait_page.title"),
        lines: vec![word("wait_page.no_pod"), word("wait_page.reloads"), word("wait_page.diagnose")],
    })
}

/// Why somebody is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// His address is in no range that is allowed.
    NotAllowed,
    /// There are too many connections, in all.
    Full,
    /// He has too many connections himself.
    TooMany,
}

/// Open connections by client, over all sockets of a forward.
pub struct Doors {
    /// What every connection is let in on.
    pub terms: Terms,
    open: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    spread: RandomState,
    /// When something of that kind may be said again, in the balancer's milliseconds.
    say_from: AtomicU64,
}

impl Doors {
    /// With these terms.
    pub fn new(terms: Terms) -> Self {
        Self { terms, open: Default::default(), spread: RandomState::new(), say_from: AtomicU64::new(0) }
    }

    /// Whether what a stranger causes now is said in the log.
    pub fn is_worth_saying(&self, now: u64) -> bool {
        let from = self.say_from.load(Relaxed);
        from <= now && self.say_from.compare_exchange(from, now + SAY_AGAIN, Relaxed, Relaxed).is_ok()
    }

    /// Lets one more connection of a client in. `open` are those there in all. Who is let in has to leave.
    ///
    /// # Errors
    /// Where he is turned away.
    pub fn enter(&self, client: IpAddr, open: u64) -> Result<(), Refusal> {
        let terms = &self.terms;
        if !terms.allows(client) {
            return Err(Refusal::NotAllowed);
        }
        if open >= terms.limits.connections as u64 {
            return Err(Refusal::Full);
        }
        let mut shard = lock(self.shard(client));
        let count = shard.entry(client).or_default();
        if *count >= terms.limits.per_client {
            return Err(Refusal::TooMany);
        }
        *count += 1;
        Ok(())
    }

    /// One of them is over.
    pub fn leave(&self, client: IpAddr) {
        let mut shard = lock(self.shard(client));
        if let Some(count) = shard.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&client);
            }
        }
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        &self.open[self.spread.hash_one(client) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_count_who_is_in_and_ranges_keep_strangers_out() {
        let (one, two): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let limits = Limits { connections: 3, per_client: 1, ..Limits::default() };
        let terms = Terms { limits, allow: vec!["10.0.0.0/8".parse().unwrap()], ..Terms::default() };
        let doors = Doors::new(terms);
        assert_eq!(doors.enter("192.0.2.1".parse().unwrap(), 0), Err(Refusal::NotAllowed));
        assert_eq!(doors.enter("::1".parse().unwrap(), 0), Err(Refusal::NotAllowed));
        assert_eq!(doors.enter(one, 0), Ok(()));
        assert_eq!(doors.enter(one, 1), Err(Refusal::TooMany));
        assert_eq!(doors.enter(two, 1), Ok(()));
        doors.leave(one);
        assert_eq!(doors.enter(one, 3), Err(Refusal::Full));
        assert_eq!(doors.enter(one, 2), Ok(()));
    }
}
