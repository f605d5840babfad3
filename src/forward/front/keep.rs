//! Keeps the rules as position, routes and trust want them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::nft::{self, Tables, Wanted};
use super::prove::{Installed, Trusted, prove};
use super::reason::{KernelReport, Reason};
use super::rules::{Family, Layout, Leases, Prover, table_name};
use super::{Led, Way, unanswered};
use crate::forward::endpoints::{Backend, Routes};
use crate::forward::listener::{self, Listeners};
use crate::forward::slots::Slots;
use crate::forward::spec::{self, Mode, Spec};
use crate::forward::standby;
use crate::observe::outsider::{OUTSIDER_RANGE, OUTSIDER_RANGE_V6, Outsider};
use crate::supervise::state::Position;

/// How often leases are renewed.
const RENEWAL: Duration = Duration::from_secs(1);
/// After a change of the endpoints new connections go to the listener for so long: it can retry on another pod where a
/// pod ends before the API says so.
const AFTER_CHANGE: Duration = Duration::from_secs(5);
/// A pod that neither gets ready nor goes keeps the kernel waiting for so long.
const LONGEST_CHANGE: Duration = Duration::from_secs(30);

/// The rules of one forward.
pub struct Front {
    table: String,
    ways: Vec<Way>,
    tables: Tables,
}

/// What decides about the rules, and where is told what became of them.
pub struct Inputs<'a> {
    pub spec: &'a Spec,
    pub routes: watch::Receiver<Routes>,
    pub position: &'a watch::Sender<Option<Position>>,
    /// Whether the rules stand where `position` says.
    pub settled: &'a watch::Sender<bool>,
    /// Told where clients are led that stay with their pods: the listener leads them there as well.
    pub led: &'a watch::Sender<Led>,
    pub report: &'a watch::Sender<KernelReport>,
    /// Told what failed, for the status.
    pub failure: &'a (dyn Fn(String) + Sync),
}

/// Whether the kernel carrier can work here at all.
///
/// # Errors
/// Why not.
pub async fn check(spec: &Spec) -> Result<(), Reason> {
    if !crate::statedir::is_root() {
        return Err(Reason::NotRoot);
    }
    if spec.addresses.iter().all(IpAddr::is_loopback) {
        return Err(Reason::NoAddress);
    }
    // Rules let in whoever comes, and tell pods nothing.
    if !spec.allow.is_empty() || spec.proxy_protocol {
        return Err(Reason::Terms);
    }
    if let Some(by) = bypass() {
        return Err(Reason::NoNetfilterPath { by: by.to_owned() });
    }
    if !nft::is_there().await {
        return Err(Reason::NoNft);
    }
    Ok(())
}

/// Who carries this node's packets past netfilter: Cilium, or Calico in its eBPF mode, by the links they make.
/// The probe of the path is the real judge; this only spares the attempt and names the cause.
fn bypass() -> Option<&'static str> {
    let link = |name: &str| Path::new("/sys/class/net").join(name).exists();
    if link("cilium_host") {
        return Some("Cilium");
    }
    link("bpfin.cali").then_some("Calico (eBPF)")
}

/// A private socket for each public one that rules may lead from; none where no rules are wanted or possible.
/// Rules are for addresses that strangers dial: not for loopback, and of "all addresses" for those that the cluster
/// knows this node by.
///
/// # Errors
/// Of the bind.
pub fn ways(spec: &Spec, node: &[IpAddr], listeners: &mut Listeners) -> Result<Vec<Way>, listener::Error> {
    let mut ways: Vec<Way> = Vec::new();
    if (spec.front == spec::Front::Never && spec.mode != Mode::Kernel) || !crate::statedir::is_root() {
        return Ok(ways);
    }
    for (pair, bound) in listeners.bound.clone().into_iter().enumerate() {
        for socket in bound {
            let all = socket.ip().is_unspecified();
            // A socket on :: takes both families.
            let meant = node.iter().filter(|ip| ip.is_ipv4() || socket.is_ipv6());
            let ips: Vec<IpAddr> = if all { meant.copied().collect() } else { vec![socket.ip()] };
            for ip in ips.into_iter().filter(|ip| !ip.is_loopback()) {
                let public = SocketAddr::new(ip, socket.port());
                if ways.iter().all(|way| way.public != public) {
                    ways.push(Way { public, private: listeners.private(pair, ip)?, pair });
                }
            }
        }
    }
    Ok(ways)
}

impl Front {
    /// Nothing is written yet.
    pub fn new(id: &str, ways: Vec<Way>) -> Self {
        let pairs = ways.iter().map(|w| w.pair + 1).max().unwrap_or(0);
        Self { table: table_name(id), ways, tables: Tables::new(pairs) }
    }

    /// Takes the rules away.
    ///
    /// # Errors
    /// Where nft refuses; without a table there is nothing to do.
    pub async fn remove(&mut self) -> Result<(), nft::Error> {
        self.tables.remove().await
    }
}

/// Keeps the rules until it is dropped. Without an address to be in front of it only says so.
pub async fn keep(front: &mut Front, inputs: Inputs<'_>) {
    let spec = inputs.spec;
    let refused = match spec.mode {
        Mode::Direct | Mode::Tunnel => Some(Reason::Mode),
        Mode::Auto | Mode::Kernel => check(spec).await.err(),
    };
    let Some(first) = front.ways.first().copied() else {
        inputs.report.send_modify(|r| r.reason = Some(refused.unwrap_or(Reason::NoRules)));
        inputs.settled.send_replace(true);
        return std::future::pending().await;
    };
    let always = spec.front != spec::Front::Standby;
    // Without a probe nobody can tell whether the NodePort works or the kernel's path does; access comes first.
    let opened = if always && refused.is_some() {
        Err(String::from("no probe is needed"))
    } else {
        match tokio::task::spawn_blocking(Outsider::open).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err("the probe panicked".to_owned()),
        }
    };
    let refused = match (&opened, refused) {
        (Err(message), None) => Some(Reason::NoProbe { message: message.clone() }),
        (_, refused) => refused,
    };
    let outsider = match &opened {
        Ok(outsider) => Some(outsider),
        Err(message) if always && refused.is_some() => {
            tracing::debug!(event = "no-probe", error = message);
            None
        }
        Err(message) => {
            tracing::error!(event = "no-probe", error = message);
            (inputs.failure)(format!("the NodePort cannot be probed from outside: {message}"));
            None
        }
    };
    let (installed, _) = watch::channel(Installed::default());
    let (trusted, _) = watch::channel(Trusted::default());
    let deciding = async {
        match outsider {
            Some(outsider) if !always => {
                standby::watch_node_port(outsider, first.public, &spec.page, inputs.routes.clone(), inputs.position)
                    .await;
            }
            _ => {
                standby::step(inputs.position, Position::Front, if always { "always" } else { "no probe" });
                std::future::pending().await
            }
        }
    };
    let ways = front.ways.clone();
    let proving = async {
        match outsider {
            Some(outsider) if refused.is_none() => {
                let positions = inputs.position.subscribe();
                prove(outsider, &ways, &spec.page, positions, installed.subscribe(), &trusted).await;
            }
            _ => std::future::pending().await,
        }
    };
    let prover = |family| {
        let like: IpAddr = if family == Family::V4 { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let link = outsider.filter(|_| refused.is_none())?.link(like)?;
        Some(Prover { source: link.prover, gate: link.gate })
    };
    let leasing = lease(front, &inputs, refused.as_ref(), prover, &installed, trusted.subscribe());
    tokio::join!(deciding, proving, leasing);
}

/// Renews the leases each second and at each change.
async fn lease(
    front: &mut Front,
    inputs: &Inputs<'_>,
    refused: Option<&Reason>,
    prover: impl Fn(Family) -> Option<Prover>,
    installed: &watch::Sender<Installed>,
    mut trusted: watch::Receiver<Trusted>,
) {
    let (mut position, mut routes) = (inputs.position.subscribe(), inputs.routes.clone());
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut changed_at): (Option<Routes>, Option<Instant>) = (None, None);
    let mut last = (None, Leases::default());
    let mut failed = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = position.changed() => {}
            Ok(()) = routes.changed() => {}
            Ok(()) = trusted.changed() => {}
        }
        let now = *position.borrow_and_update();
        let (to, known) = (routes.borrow_and_update().clone(), trusted.borrow_and_update().clone());
        if before.as_ref().is_some_and(|b| (&b.pairs, b.unsettled) != (&to.pairs, to.unsettled)) {
            changed_at = Some(Instant::now());
        }
        before = Some(to.clone());
        let grace = if to.unsettled { LONGEST_CHANGE } else { AFTER_CHANGE };
        let changing = changed_at.is_some_and(|at| at.elapsed() < grace);
        let want = want(front, now, &to, &known, refused, changing, &prover);
        inputs.led.send_if_modified(|old| {
            let changed = *old != want.2;
            old.clone_from(&want.2);
            changed
        });
        let leases = &want.0.leases;
        match front.tables.put(&want.0).await {
            Ok(()) => {
                failed = false;
                let lost = (&last.1.kernel, &last.1.listener) != (&leases.kernel, &leases.listener);
                if now == Some(Position::Front) && (last.0 != now || lost) {
                    // Beside the leases, which must go on.
                    tokio::spawn(unanswered::forget(front.ways.iter().map(|w| w.public).collect()));
                }
                if last.1.kernel.is_empty() != leases.kernel.is_empty() {
                    tracing::info!(event = "kernel", carrying = !leases.kernel.is_empty(), reason = ?want.1);
                }
                installed.send_if_modified(|old| {
                    let made = front.tables.made();
                    let new = Installed { each: leases.each.clone(), filled: leases.filled.clone(), made };
                    let changed = *old != new;
                    *old = new;
                    changed
                });
                let carrying = !leases.kernel.is_empty();
                let connections = front.tables.connections();
                inputs.report.send_modify(|report| {
                    let renewals = report.renewals + 1;
                    let proven = known.endpoints.len();
                    *report = KernelReport { carrying, reason: want.1, proven, connections, renewals };
                });
                last = (now, want.0.leases);
                inputs.settled.send_if_modified(|s| !std::mem::replace(s, now.is_some()) && now.is_some());
            }
            Err(error) => {
                let message = error.to_string();
                if !failed {
                    tracing::error!(event = "rules-failed", error = message);
                }
                failed = true;
                let reason = match error {
                    nft::Error::NoNft => Reason::NoNft,
                    nft::Error::Occupied(table) => Reason::TableOccupied { table },
                    nft::Error::Nft(message) => Reason::RulesFailed { message },
                };
                inputs.report.send_modify(|report| {
                    report.carrying = false;
                    report.reason = Some(reason);
                });
                (inputs.failure)(message);
            }
        }
    }
}

/// What the rules shall be, why the kernel does not carry where it does not, and where it leads clients that stay with
/// their pods.
fn want(
    front: &Front,
    position: Option<Position>,
    routes: &Routes,
    known: &Trusted,
    refused: Option<&Reason>,
    changing: bool,
    prover: &impl Fn(Family) -> Option<Prover>,
) -> (Wanted, Option<Reason>, Led) {
    let families: BTreeSet<Family> = front.ways.iter().map(|w| Family::of(w.public.ip())).collect();
    let keys: BTreeSet<(Family, usize)> = front.ways.iter().map(|w| (Family::of(w.public.ip()), w.pair)).collect();
    let of = |(family, pair): (Family, usize)| {
        let all: &[Backend] = routes.pairs.get(pair).map(|p| &**p).unwrap_or_default();
        all.iter().copied().filter(move |b| Family::of(b.socket.ip()) == family)
    };
    let mut each: Vec<SocketAddr> = Vec::new();
    let (mut slots, mut led) = (BTreeMap::new(), Led::default());
    for key in keys.iter().filter(|_| refused.is_none()) {
        for Backend { socket, .. } in of(*key) {
            if !each.contains(&socket) {
                each.push(socket);
            }
        }
        let trusted: Vec<Backend> = of(*key).filter(|b| known.endpoints.contains(&b.socket)).collect();
        let of_key = if routes.by_client { Slots::by_client(&trusted) } else { Slots::even(&trusted) };
        // Clients of a pod that was not tried yet must not be led to another first.
        if routes.by_client && of(*key).all(|b| known.decided.contains(&b.socket)) {
            led.insert(*key, of_key.clone());
        }
        slots.insert(*key, of_key);
    }
    let filled: BTreeSet<_> = slots.iter().filter(|(_, s)| !s.is_empty()).map(|(key, _)| *key).collect();
    let is_carried = |way: &Way| {
        let key = (Family::of(way.public.ip()), way.pair);
        let is_complete = !routes.by_client || led.contains_key(&key);
        refused.is_none() && !changing && is_complete && filled.contains(&key) && known.paths.contains(&key)
    };
    let in_front = position == Some(Position::Front);
    let (kernel, listener): (Vec<Way>, Vec<Way>) =
        front.ways.iter().filter(|_| in_front).copied().partition(is_carried);
    let reason = if !kernel.is_empty() {
        None
    } else if let Some(refused) = refused {
        Some(refused.clone())
    } else if !in_front {
        Some(Reason::Behind)
    } else if each.is_empty() {
        Some(Reason::NoEndpoint { local: routes.keep_client })
    } else if changing {
        Some(Reason::Changing)
    } else {
        Some(Reason::PathFails)
    };
    let layout = |family: &Family| Layout {
        table: front.table.clone(),
        family: *family,
        outsiders: if *family == Family::V4 { OUTSIDER_RANGE } else { OUTSIDER_RANGE_V6 },
        prover: prover(*family),
        pairs: front.ways.iter().map(|w| w.pair + 1).max().unwrap_or(0),
        keep_client: routes.keep_client,
        by_client: routes.by_client,
    };
    // Ports of the gate are counted from 1.
    each.truncate(usize::from(u16::MAX) - 1);
    let leases = Leases { kernel, listener, all: front.ways.clone(), each, filled };
    (Wanted { layouts: families.iter().map(layout).collect(), slots, leases }, reason, led)
}
