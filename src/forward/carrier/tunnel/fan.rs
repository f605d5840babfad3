//! Who waits for one socket: several streams of a shared tunnel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::forward::stats::lock;

/// Wakes the streams of a shared link.
#[derive(Default)]
pub struct Fan(Mutex<Wakers>);

#[derive(Default)]
struct Wakers {
    /// By key.
    users: HashMap<u64, Waker>,
    /// Of those that lent it on. Hundreds at times, so that not all are woken for each other's bytes.
    lenders: HashMap<u64, Waker>,
}

impl Wake for Fan {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// The socket has something for somebody: who reads tells the others.
    fn wake_by_ref(self: &Arc<Self>) {
        let mut wakers = lock(&self.0);
        if wakers.users.is_empty() {
            let one = wakers.lenders.keys().next().copied();
            if let Some(waker) = one.and_then(|key| wakers.lenders.remove(&key)) {
                waker.wake();
            }
        }
        for (_, waker) in wakers.users.drain() {
            waker.wake();
        }
    }
}

impl Fan {
    pub fn register(&self, key: u64, lent: bool, waker: &Waker) {
        let mut wakers = lock(&self.0);
        let of_its_kind = if lent { &mut wakers.lenders } else { &mut wakers.users };
        of_its_kind.insert(key, waker.clone());
        if lent {
            wakers.users.remove(&key);
        }
    }

    pub fn wake_one(&self, key: u64) {
        let mut wakers = lock(&self.0);
        if let Some(waker) = wakers.users.remove(&key).or_else(|| wakers.lenders.remove(&key)) {
            waker.wake();
        }
    }

    pub fn wake_all(&self) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        for waker in wakers.users.into_values().chain(wakers.lenders.into_values()) {
            waker.wake();
        }
    }

    pub fn forget(&self, key: u64) {
        let mut wakers = lock(&self.0);
        wakers.users.remove(&key);
        wakers.lenders.remove(&key);
    }
}
