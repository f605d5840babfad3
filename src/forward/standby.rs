//! Watches the NodePort as a stranger sees it, and tells the front when to step in and when to step back.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::front::{Front, RENEWAL};
use super::session::Shared;
use super::spec::{self, Page};
use super::watch::Endpoints;
use crate::model::Outcome;
use crate::observe::dial::{Ask, dial};
use crate::observe::outsider::Outsider;
use crate::supervise::state::{Position, Standby};

/// Between two probes of a NodePort.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A node takes a connection at once or not at all. What matters here is only whether it does: a REJECT that the kernel
/// delays counts like a drop, and the sooner a dead path is known the fewer browsers meet it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
/// The page itself may be slow.
const PAGE_TIMEOUT: Duration = Duration::from_secs(3);

/// Decides the position until it is dropped. `Front::Always` needs no probe.
pub async fn watch_node_port(
    mode: spec::Front,
    node_port: SocketAddrV4,
    page: &Page,
    mut endpoints: watch::Receiver<Endpoints>,
    position: &watch::Sender<Option<Position>>,
    shared: &Shared,
) {
    if mode == spec::Front::Always {
        step(position, Position::Front, "always");
        return std::future::pending().await;
    }
    let outsider = match tokio::task::spawn_blocking(Outsider::open).await {
        Ok(Ok(outsider)) => Arc::new(outsider),
        other => {
            // Nobody can tell whether the NodePort works; access comes first.
            let why = match other {
                Ok(Err(error)) => error.to_string(),
                _ => "the probe panicked".to_owned(),
            };
            tracing::error!(event = "no-probe", error = why);
            shared.stats.failure(format!("the NodePort cannot be probed from outside: {why}"));
            step(position, Position::Front, "no probe");
            return std::future::pending().await;
        }
    };
    let page = Arc::new(page.clone());
    let began = Instant::now();
    let mut standby = Standby::default();
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut endpoints_live = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = endpoints.changed(), if endpoints_live => endpoints_live = changed.is_ok(),
        }
        let (outsider, page) = (outsider.clone(), page.clone());
        let probe = tokio::task::spawn_blocking(move || probe(&outsider, node_port, &page));
        let outcome = match probe.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Other { message: error.to_string() },
            Err(_) => continue,
        };
        if !outcome.is_right() && standby.position() == Position::Behind {
            // Whether it is broken or was only a lost packet is known by a second look at once.
            ticks.reset_immediately();
        }
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = standby.observe(now, outcome.is_right());
        step(position, next, &format!("{outcome:?}"));
    }
}

fn probe(outsider: &Outsider, node_port: SocketAddrV4, page: &Page) -> std::io::Result<Outcome> {
    let host = node_port.to_string();
    let connect = Ask { host: &host, path: None, marker: None };
    let page = Ask { host: &host, path: Some(&page.path), marker: page.marker.as_deref() };
    let (ip, port) = (IpAddr::V4(*node_port.ip()), node_port.port());
    outsider.inside(|| match dial(ip, port, &connect, CONNECT_TIMEOUT).0 {
        Outcome::Connected => dial(ip, port, &page, PAGE_TIMEOUT).0,
        failed => failed,
    })
}

fn step(position: &watch::Sender<Option<Position>>, next: Position, why: &str) {
    position.send_if_modified(|now| {
        let changed = *now != Some(next);
        if changed {
            tracing::info!(event = "position", position = ?next, outcome = why);
            *now = Some(next);
        }
        changed
    });
}

/// Renews the front's leases each second and at each step, until it is dropped.
pub async fn keep_leases(
    front: &mut Front,
    mut position: watch::Receiver<Option<Position>>,
    settled: &watch::Sender<bool>,
    shared: &Shared,
) {
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    let mut before = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = position.changed() => {}
        }
        let now = *position.borrow_and_update();
        // Before the first probe decided, the listener is hidden from it already.
        match front.renew(now.unwrap_or(Position::Behind)).await {
            Ok(()) => {
                failed = false;
                if now == Some(Position::Front) && before != now {
                    front.forget_unanswered().await;
                }
                before = now;
                settled.send_if_modified(|s| !std::mem::replace(s, now.is_some()) && now.is_some());
            }
            Err(error) => {
                if !failed {
                    tracing::error!(event = "rules-failed", error = %error);
                }
                failed = true;
                shared.stats.failure(error.to_string());
            }
        }
    }
}
