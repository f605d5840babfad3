//! Who is let in: limits on open connections, in all and by client.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;

use super::stats::lock;

/// Locks over which clients are spread, so that data threads seldom meet.
const SHARDS: usize = 16;

/// Open connections by client, over all sockets of a forward.
pub struct Doors {
    /// Connections at a time, in all.
    pub in_all: usize,
    /// Connections at a time from one address.
    pub per_client: usize,
    open: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    spread: RandomState,
}

impl Default for Doors {
    fn default() -> Self {
        Self { in_all: 10_000, per_client: 512, open: Default::default(), spread: RandomState::new() }
    }
}

impl Doors {
    /// Lets one more connection of a client in, or not. `open` are those there in all. Who is let in has to leave.
    pub fn enter(&self, client: IpAddr, open: usize) -> bool {
        if open >= self.in_all {
            return false;
        }
        let mut shard = lock(self.shard(client));
        let count = shard.entry(client).or_default();
        if *count >= self.per_client {
            return false;
        }
        *count += 1;
        true
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
