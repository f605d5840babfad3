//! Tries the kernel's path before strangers take it and as long as they do: each endpoint by itself, and the page by
//! the very rules that a stranger's packets pass.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Way;
use super::probe::{ask, connect, passes};
use super::rules::Family;
use super::trust::{Met, Trust};
use crate::forward::spec::Page;
use crate::model::Outcome;
use crate::observe::outsider::Outsider;
use crate::supervise::state::Position;

/// Between two rounds in front.
const INTERVAL: Duration = Duration::from_millis(400);
/// Behind, every so many rounds: what is known must not be old when it is needed.
const ROUNDS_BEHIND: u32 = 12;
/// A page is asked for every so many rounds.
const ROUNDS_PAGE: u32 = 3;
/// At most so many endpoints a round, in turn: a large Service must not be flooded.
const AT_ONCE: usize = 16;
/// A pod's node takes a connection at once or not at all; a second look follows at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the rules hold for the probe, told after each change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// By the gate's ports, from 1.
    pub each: Vec<SocketAddr>,
    /// Where the slots lead somewhere.
    pub filled: BTreeSet<(Family, usize)>,
    /// How often the tables were made anew. What a probe met while somebody had flushed them says nothing of a path.
    pub made: u64,
}

/// What strangers may be led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    pub endpoints: BTreeSet<SocketAddr>,
    pub paths: BTreeSet<(Family, usize)>,
    /// Endpoints that failed or passed; the others were not tried yet.
    pub decided: BTreeSet<SocketAddr>,
}

/// Probes until it is dropped.
pub async fn prove(
    outsider: &Outsider,
    ways: &[Way],
    page: &Page,
    mut position: watch::Receiver<Option<Position>>,
    mut installed: watch::Receiver<Installed>,
    trusted: &watch::Sender<Trusted>,
) {
    let (mut endpoints, mut paths) = (Trust::default(), Trust::<(Family, usize)>::default());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let (mut round, mut offset, mut made) = (0u32, 0, 0);
    loop {
        let due = tokio::select! {
            _ = ticks.tick() => {
                round = round.wrapping_add(1);
                *position.borrow() == Some(Position::Front) || round.is_multiple_of(ROUNDS_BEHIND)
            }
            changed = installed.changed() => changed.is_ok(),
            changed = position.changed() => changed.is_ok(),
        };
        if !due {
            continue;
        }
        let there = installed.borrow_and_update().clone();
        if std::mem::replace(&mut made, there.made) != there.made {
            (endpoints, paths) = (Trust::default(), Trust::default());
        }
        endpoints.retain(|e| there.each.contains(e));
        paths.retain(|p| there.filled.contains(p));
        let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // What is undecided comes first, the others in turn.
        let all = there.each.iter().copied().enumerate();
        let mut due: Vec<(usize, SocketAddr)> = all.filter(|(_, e)| !endpoints.is_decided(e)).take(AT_ONCE).collect();
        for step in 0..there.each.len().min(AT_ONCE) {
            let at = (offset + step) % there.each.len();
            if due.len() < AT_ONCE && due.iter().all(|(other, _)| *other != at) {
                due.push((at, there.each[at]));
            }
        }
        offset = offset.wrapping_add(AT_ONCE) % there.each.len().max(1);
        let met = join_all(due.into_iter().map(|(at, e)| async move { (e, knock(outsider, at, e).await) })).await;
        for (endpoint, met) in met {
            endpoints.observe(endpoint, met, now());
        }
        let page_due = round.is_multiple_of(ROUNDS_PAGE);
        let asked = there.filled.iter().filter(|p| page_due || !paths.is_decided(p));
        let asked = asked.filter_map(|path| {
            let way = ways.iter().find(|w| (Family::of(w.public.ip()), w.pair) == *path)?;
            Some(async move { (*path, walk(outsider, way, page).await) })
        });
        for (path, outcome) in join_all(asked).await {
            let met = if passes(&outcome) { Met::Passed } else { Met::Failed };
            if met == Met::Failed && paths.is_decided(&path) {
                tracing::info!(event = "kernel-path-fails", pair = path.1, outcome = ?outcome);
            }
            paths.observe(path, met, now());
        }
        let undecided =
            there.each.iter().any(|e| !endpoints.is_decided(e)) || there.filled.iter().any(|p| !paths.is_decided(p));
        if undecided {
            ticks.reset_immediately();
        }
        let known = Trusted {
            endpoints: there.each.iter().copied().filter(|e| endpoints.holds(e)).collect(),
            paths: there.filled.iter().copied().filter(|p| paths.holds(p)).collect(),
            decided: there.each.iter().copied().filter(|e| endpoints.is_decided(e)).collect(),
        };
        trusted.send_if_modified(|old| {
            let changed = *old != known;
            *old = known;
            changed
        });
    }
}

/// One endpoint, by the gate's port.
async fn knock(outsider: &Outsider, at: usize, endpoint: SocketAddr) -> Met {
    let (Some(link), Ok(port)) = (outsider.link(endpoint.ip()), u16::try_from(at + 1)) else { return Met::Failed };
    match connect(outsider, link.prover, SocketAddr::new(link.gate, port), CONNECT_TIMEOUT).await {
        Ok(_) => Met::Passed,
        Err(Outcome::Refused) => Met::Refused,
        Err(_) => Met::Failed,
    }
}

/// The whole way of a stranger.
async fn walk(outsider: &Outsider, way: &Way, page: &Page) -> Outcome {
    let Some(link) = outsider.link(way.public.ip()) else { return Outcome::NetworkUnreachable };
    match connect(outsider, link.prover, way.public, CONNECT_TIMEOUT).await {
        // Only the first pair is the page's.
        Ok(stream) if way.pair == 0 => ask(stream, page, PAGE_TIMEOUT).await,
        Ok(_) => Outcome::Connected,
        Err(outcome) => outcome,
    }
}
