//! Watches the NodePort as a stranger sees it, and tells the front when to step in and when to step back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::endpoints::Routes;
use super::front::probe::{ask, connect, passes};
use super::spec::Page;
use crate::model::Outcome;
use crate::observe::outsider::Outsider;
use crate::supervise::state::{Position, Standby};

/// Between two dials of a NodePort. With the two looks that a failure takes, a dead path is known within a second.
const PROBE_INTERVAL: Duration = Duration::from_millis(400);
/// The page is asked for less often than the port is dialled.
const PAGE_INTERVAL: Duration = Duration::from_secs(1);
/// A node takes a connection at once or not at all. What matters here is only whether it does: a REJECT that the kernel
/// delays counts like a drop, and the sooner a dead path is known the fewer browsers meet it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The second look begins while the first may still wait: one lost packet is no broken path.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// The page itself may be slow.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);
/// kube-proxy's health, by default on all addresses of the node.
const PROXY_PORT: u16 = 10256;
/// Asking is a dial from the node to itself.
const PROXY_INTERVAL: Duration = Duration::from_millis(250);
const PROXY_TIMEOUT: Duration = Duration::from_secs(1);

/// Decides the position until it is dropped.
pub async fn watch_node_port(
    outsider: &Outsider,
    node_port: SocketAddr,
    page: &Page,
    routes: watch::Receiver<Routes>,
    position: &watch::Sender<Option<Position>>,
) {
    let (proxy, proxy_feed) = watch::channel(None);
    tokio::join!(watch_proxy(node_port.ip(), &proxy), decide(outsider, node_port, page, routes, proxy_feed, position));
}

async fn decide(
    outsider: &Outsider,
    node_port: SocketAddr,
    page: &Page,
    mut routes: watch::Receiver<Routes>,
    mut proxy: watch::Receiver<Option<bool>>,
    position: &watch::Sender<Option<Position>>,
) {
    let began = Instant::now();
    let mut standby = Standby::default();
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut page_asked: Option<Instant> = None;
    loop {
        let mut stale = false;
        tokio::select! {
            _ = ticks.tick() => {}
            // A kube-proxy that fell silent does not follow the pods: its rules are stale from now on.
            Ok(()) = routes.changed() => stale = *proxy.borrow() == Some(false),
            Ok(()) = proxy.changed() => {}
        }
        let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if stale && standby.position() == Position::Behind {
            step(position, standby.certain(now()), "the pods changed while kube-proxy is away");
            continue;
        }
        let (outcome, looks) = look(outsider, node_port).await;
        let outcome = match outcome {
            Ok(stream) if page_asked.is_none_or(|at| at.elapsed() >= PAGE_INTERVAL) => {
                page_asked = Some(Instant::now());
                ask(stream, page, PAGE_TIMEOUT).await
            }
            Ok(_) => Outcome::Connected,
            Err(outcome) => outcome,
        };
        let passed = passes(&outcome);
        if !passed {
            // A page that is wrong has its second look at once.
            page_asked = None;
            if standby.position() == Position::Behind {
                ticks.reset_immediately();
            }
        }
        for _ in 1..looks {
            standby.observe(now(), passed);
        }
        step(position, standby.observe(now(), passed), &format!("{outcome:?}"));
    }
}

/// Dials, and where that does not succeed at once dials again. Tells how many dials the outcome stands for.
async fn look(outsider: &Outsider, to: SocketAddr) -> (Result<TcpStream, Outcome>, u32) {
    let Some(link) = outsider.link(to.ip()) else { return (Err(Outcome::NetworkUnreachable), 1) };
    let dial = || connect(outsider, link.stranger, to, CONNECT_TIMEOUT);
    let mut first = Box::pin(dial());
    match timeout(SECOND_LOOK, &mut first).await {
        Ok(Ok(stream)) => (Ok(stream), 1),
        Ok(Err(_)) => (dial().await, 2),
        Err(_) => match futures::future::select_ok([first, Box::pin(dial())]).await {
            Ok((stream, _)) => (Ok(stream), 1),
            Err(outcome) => (Err(outcome), 2),
        },
    }
}

/// Whether kube-proxy of this node says it is well; none until it once did.
async fn watch_proxy(ip: IpAddr, health: &watch::Sender<Option<bool>>) {
    loop {
        let well =
            timeout(PROXY_TIMEOUT, is_well(SocketAddr::new(ip, PROXY_PORT))).await.is_ok_and(|w| w.is_ok_and(|w| w));
        health.send_if_modified(|known| {
            let new = if known.is_none() && !well { None } else { Some(well) };
            let changed = *known != new;
            if changed {
                tracing::info!(event = "kube-proxy", well);
            }
            *known = new;
            changed
        });
        sleep(PROXY_INTERVAL).await;
    }
}

async fn is_well(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    Ok(first.ends_with(b" 200"))
}

/// Tells the position.
pub fn step(position: &watch::Sender<Option<Position>>, next: Position, why: &str) {
    position.send_if_modified(|now| {
        let changed = *now != Some(next);
        if changed {
            tracing::info!(event = "position", position = ?next, outcome = why);
            *now = Some(next);
        }
        changed
    });
}
