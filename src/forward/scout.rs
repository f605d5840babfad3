//! Finds out which pods this host can dial directly, so that no connection has to wait for an answer that never comes.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::balancer::Way;
use super::carrier::direct;
use super::endpoints::Endpoint;
use super::session::{Shared, shun};
use super::stats::lock;

/// How often unreachable pods are dialled again.
const INTERVAL: Duration = Duration::from_secs(10);

/// Dials new pods once and unreachable ones again and again. Never ends by itself. `first` tells when all pods known
/// at the start were dialled.
pub async fn scout(shared: &Shared, first: &watch::Sender<bool>) {
    let mut endpoints = shared.endpoints.clone();
    endpoints.mark_unchanged();
    let mut known: BTreeSet<Endpoint> = BTreeSet::new();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = endpoints.changed(), if live => live = changed.is_ok(),
        }
        let all: BTreeSet<Endpoint> = endpoints.borrow_and_update().all().cloned().collect();
        let now = shared.now();
        let is_due = |e: &&Endpoint| !known.contains(*e) || lock(&shared.balancer).is_shunned(e, Way::Direct, now);
        let due: Vec<&Endpoint> = all.iter().filter(is_due).collect();
        futures::future::join_all(due.into_iter().map(|endpoint| dial(shared, endpoint))).await;
        known = all;
        first.send_replace(true);
    }
}

async fn dial(shared: &Shared, endpoint: &Endpoint) {
    match direct::open(endpoint, &[]).await {
        Ok(stream) => {
            drop(stream);
            lock(&shared.balancer).worked(endpoint, Way::Direct);
        }
        // A pod that refuses may be starting; its own connections find out soon enough.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
        Err(error) => {
            if !lock(&shared.balancer).is_shunned(endpoint, Way::Direct, shared.now()) {
                let pod = endpoint.pod.clone().unwrap_or_else(|| endpoint.ip.to_string());
                tracing::info!(event = "unreachable", pod, error = %error);
            }
            shun(shared, endpoint, Way::Direct, &error);
        }
    }
}
