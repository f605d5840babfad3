//! One forward as a whole: opened, run until it is stopped or its target is gone, drained.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch as feed;
use tokio_util::sync::CancellationToken;

use super::balancer::Way;
use super::carrier::Carriers;
use super::carrier::tunnel::{MOST_TUNNELS, Tunnel, TunnelStats};
use super::doors::Terms;
use super::front::{self, KernelReport, Reason};
use super::listener::{self, Listeners, Socket};
use super::metrics;
use super::report::{Failure, Numbers, Phase, Report};
use super::session::Shared;
use super::spec::{LOCALHOST, Mode, Spec};
use super::stats::lock;
use super::watch::{self, Feeds, Over, Watch};
use super::worker::{self, Workers};
use crate::supervise::state::Position;

/// Open connections get so long to end when the forward stops.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Rules and scout take no longer than this at the start, or the forward begins without them.
const SETTLE: Duration = Duration::from_secs(5);

/// Why a forward cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Watch(#[from] watch::Error),
    #[error(transparent)]
    Listen(#[from] listener::Error),
    #[error("the system gives no thread or descriptor: {0}")]
    Threads(std::io::Error),
    #[error("no kernel carrier: {0}")]
    NoKernelCarrier(Reason),
}

/// An open forward: its sockets are bound and its endpoints known, but nobody is served yet.
pub struct Forward {
    metrics: Option<Socket>,
    workers: Workers,
    watch: Watch,
    view: View,
    #[cfg(target_os = "linux")]
    ways: Vec<front::Way>,
}

/// What can be seen of a forward while it runs.
#[derive(Clone)]
pub struct View(Arc<Inside>);

struct Inside {
    id: String,
    spec: Spec,
    listen: Vec<SocketAddr>,
    urls: Vec<String>,
    started_at: Timestamp,
    shared: Arc<Shared>,
    tunnels: Arc<TunnelStats>,
    feeds: Feeds,
    /// None until the first probe decided.
    position: feed::Sender<Option<Position>>,
    /// Whether the rules stand where `position` says.
    settled: feed::Sender<bool>,
    /// What the kernel carries.
    kernel: feed::Sender<KernelReport>,
    /// Whether it is known which pods can be dialled directly.
    scouted: feed::Sender<bool>,
    seen: Mutex<Seen>,
    /// The listening sockets once more, as long as it serves: they can be handed to a successor.
    sockets: Mutex<Vec<Socket>>,
    /// The data threads' runtimes.
    threads: Vec<Handle>,
    /// A successor serves on the same sockets.
    succeeded: CancellationToken,
}

struct Seen {
    phase: Phase,
    phase_since: Timestamp,
    position: Option<Position>,
    position_since: Option<Timestamp>,
    over: Option<Over>,
}

impl Forward {
    /// Binds, and looks at the cluster once.
    ///
    /// # Errors
    /// See [`Error`]; nothing stays bound.
    pub async fn open(spec: Spec) -> Result<Self, Error> {
        Self::take_over(spec, Vec::new()).await
    }

    /// As [`Forward::open`], with sockets that another process bound.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_over(mut spec: Spec, mut given: Vec<Socket>) -> Result<Self, Error> {
        let ways = match spec.mode {
            // What the kernel does not carry comes to the listener.
            Mode::Auto | Mode::Kernel => vec![Way::Direct, Way::Tunnel],
            Mode::Direct => vec![Way::Direct],
            Mode::Tunnel => vec![Way::Tunnel],
        };
        #[cfg(target_os = "linux")]
        if spec.mode == Mode::Kernel {
            front::check(&spec).await.map_err(Error::NoKernelCarrier)?;
        }
        #[cfg(not(target_os = "linux"))]
        if spec.mode == Mode::Kernel {
            return Err(Error::NoKernelCarrier(Reason::NotLinux));
        }
        // An id made before the cluster was known stays: the record lies under it.
        let id = spec.id();
        let metrics = metrics::listen(spec.metrics, &mut given)?;
        #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "only rules need private sockets"))]
        let mut listeners = Listeners::adopt(&spec, worker::width(), given)?;
        let (watch, feeds) = watch::open(&mut spec).await?;
        #[cfg(target_os = "linux")]
        let front_ways = front::ways(&spec, &feeds.node_addresses, &mut listeners)?;
        let tunnels = Arc::<TunnelStats>::default();
        let (width, most) = (worker::width(), MOST_TUNNELS / worker::width());
        let tunnel = || Tunnel::sharing(feeds.client.clone(), spec.namespace.clone(), most, tunnels.clone());
        let carriers = (0..width).map(|_| Carriers { tunnel: Some(tunnel()) }).collect();
        let shared = Arc::new(Shared::new(feeds.endpoints.clone(), feeds.routes.clone(), ways, Terms::of(&spec)));
        let (listen, urls) = (listeners.bound.iter().flatten().copied().collect(), urls(&spec, &listeners.bound));
        let mut sockets = listeners.copies().map_err(Error::Threads)?;
        sockets.extend(metrics.as_ref().map(Socket::try_clone).transpose().map_err(Error::Threads)?);
        let workers = Workers::start(&shared, carriers, listeners).map_err(Error::Threads)?;
        let now = Timestamp::now();
        let inside = Inside {
            id,
            urls,
            listen,
            spec,
            started_at: now,
            shared,
            tunnels,
            feeds,
            position: feed::channel(None).0,
            settled: feed::channel(false).0,
            kernel: feed::channel(KernelReport::default()).0,
            scouted: feed::channel(false).0,
            seen: Mutex::new(Seen {
                phase: Phase::Parking,
                phase_since: now,
                position: None,
                position_since: None,
                over: None,
            }),
            sockets: Mutex::new(sockets),
            threads: workers.handles(),
            succeeded: CancellationToken::new(),
        };
        Ok(Self {
            metrics,
            workers,
            watch,
            view: View(Arc::new(inside)),
            #[cfg(target_os = "linux")]
            ways: front_ways,
        })
    }

    /// What can be seen of it.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Serves until `stop`, or until the target or the cluster is gone; then drains. `stop` a second time, as
    /// `hurry`, breaks off what is still open. After [`View::give_way`] it ends when its last connection did, and takes
    /// away nothing that its successor uses.
    pub async fn run(self, stop: &CancellationToken, hurry: &CancellationToken) -> Option<Over> {
        let inside = self.view.0.clone();
        self.workers.serve();
        #[cfg(target_os = "linux")]
        let mut front = front::Front::new(&inside.id, self.ways);
        let mut watch = std::pin::pin!(self.watch.run());
        let mut upkeep = std::pin::pin!(forget_gone_pods(&inside));
        let mut over = {
            #[cfg(target_os = "linux")]
            let rules = keep_front(&mut front, &inside);
            #[cfg(not(target_os = "linux"))]
            let rules = async {
                inside.kernel.send_modify(|kernel| kernel.reason = Some(Reason::NotLinux));
                inside.settled.send_replace(true);
                std::future::pending::<()>().await
            };
            let scouting = look_around(&inside);
            let metrics = metrics::serve(self.metrics, self.view.clone());
            tokio::select! {
                over = &mut watch => Some(over),
                () = stop.cancelled() => None,
                () = inside.succeeded.cancelled() => None,
                () = rules => None,
                () = &mut upkeep => None,
                () = scouting => None,
                () = metrics => None,
            }
        };
        let succeeded = over.is_none() && inside.succeeded.is_cancelled();
        tracing::info!(event = "closing", over = ?over, succeeded);
        {
            let mut seen = lock(&inside.seen);
            seen.over.clone_from(&over);
            seen.phase = Phase::Draining;
            seen.phase_since = Timestamp::now();
        }
        lock(&inside.sockets).clear();
        if succeeded {
            self.workers.leave();
        } else {
            #[cfg(target_os = "linux")]
            if let Err(error) = front.remove().await {
                tracing::error!(event = "rules-left", error = %error);
            }
            inside.shared.closing.cancel();
        }
        let drained = self.workers.drain(async {
            if succeeded {
                // Who waits for a pod here still learns of one.
                tokio::select! {
                    gone = &mut watch => over = Some(gone),
                    () = stop.cancelled() => {}
                    () = &mut upkeep => {}
                }
                inside.shared.closing.cancel();
            }
            let _ = tokio::time::timeout(DRAIN, hurry.cancelled()).await;
        });
        drained.await;
        let mut seen = lock(&inside.seen);
        seen.phase = if over.is_some() { Phase::Over } else { Phase::Stopped };
        seen.phase_since = Timestamp::now();
        over
    }
}

/// Rules, where there is a port to be in front of. Never ends by itself.
#[cfg(target_os = "linux")]
async fn keep_front(front: &mut front::Front, inside: &Inside) {
    let inputs = front::Inputs {
        spec: &inside.spec,
        routes: inside.feeds.routes.clone(),
        position: &inside.position,
        settled: &inside.settled,
        led: &inside.shared.led,
        report: &inside.kernel,
        failure: &|message| inside.shared.stats.failure(message),
    };
    front::keep(front, inputs).await;
}

/// Scouts where there is a choice between ways. Never ends by itself.
async fn look_around(inside: &Inside) {
    if matches!(inside.spec.mode, Mode::Auto | Mode::Kernel) {
        super::scout::scout(&inside.shared, &inside.scouted).await;
    }
    inside.scouted.send_replace(true);
    std::future::pending().await
}

/// Keeps the balancer's books as short as the list of pods. Never ends by itself.
async fn forget_gone_pods(inside: &Inside) {
    let mut endpoints = inside.feeds.endpoints.clone();
    while endpoints.changed().await.is_ok() {
        let all: Vec<_> = endpoints.borrow_and_update().all().cloned().collect();
        lock(&inside.shared.balancer).retain(&all);
        inside.shared.stats.retain(&all);
    }
    std::future::pending().await
}

fn urls(spec: &Spec, bound: &[Vec<SocketAddr>]) -> Vec<String> {
    let mut urls = Vec::new();
    for sockets in bound {
        for socket in sockets {
            let host = match socket.ip() {
                ip if LOCALHOST.contains(&ip) && spec.addresses == LOCALHOST => "localhost".to_owned(),
                ip if ip.is_unspecified() => "localhost".to_owned(),
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            let url = format!("http://{host}:{}{}", socket.port(), spec.page.path);
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}

impl View {
    /// What a browser opens.
    pub fn urls(&self) -> &[String] {
        &self.0.urls
    }

    /// Waits until the rules stand where they belong and the ways to the pods are known, at most a few seconds.
    pub async fn settled(&self) {
        let (mut scouted, mut settled) = (self.0.scouted.subscribe(), self.0.settled.subscribe());
        let both = async { tokio::join!(scouted.wait_for(|s| *s), settled.wait_for(|s| *s)).0.is_ok() };
        if tokio::time::timeout(SETTLE, both).await.is_err() {
            tracing::warn!(event = "unsettled");
        }
    }

    /// The listening sockets once more, for a successor; none once it closes.
    ///
    /// # Errors
    /// Where no descriptors are left.
    pub fn sockets(&self) -> std::io::Result<Vec<Socket>> {
        lock(&self.0.sockets).iter().map(Socket::try_clone).collect()
    }

    /// The port pairs that have sockets, and whether these are private; also once they are closed.
    pub fn pairs(&self) -> Vec<(usize, bool)> {
        (0..self.0.spec.pairs.len())
            .flat_map(|pair| [(pair, false), (pair, true)])
            .chain([(metrics::PAIR, false)])
            .collect()
    }

    /// A successor serves on the same sockets and under the same rules: accepts no more and leaves the rules alone.
    pub fn give_way(&self) {
        self.0.succeeded.cancel();
    }

    /// Waits until every data thread gave a sign of life. One that hangs never does.
    pub async fn answers(&self) {
        for thread in &self.0.threads {
            // A runtime that is shutting down answers with an error, which is an answer.
            let _ = thread.spawn(std::future::ready(())).await;
        }
    }

    /// This moment.
    pub fn report(&self) -> Report {
        let inside = &*self.0;
        let stats = &inside.shared.stats;
        let pods: Vec<String> = {
            let endpoints = inside.feeds.endpoints.borrow();
            endpoints.all().map(|e| e.pod.clone().unwrap_or_else(|| e.ip.to_string())).collect()
        };
        let now = Timestamp::now();
        let mut seen = lock(&inside.seen);
        let phase = if pods.is_empty() { Phase::Parking } else { Phase::Ready };
        if matches!(seen.phase, Phase::Ready | Phase::Parking) && seen.phase != phase {
            seen.phase = phase;
            seen.phase_since = now;
        }
        let position = *inside.position.borrow();
        if seen.position != position {
            seen.position = position;
            seen.position_since = Some(now);
        }
        Report {
            id: inside.id.clone(),
            target: inside.spec.target(),
            object: inside.spec.object(),
            urls: inside.urls.clone(),
            listen: inside.listen.clone(),
            mode: inside.spec.mode,
            carrier: stats.last_way(),
            tunnel_protocol: inside.tunnels.rung(),
            front: inside.spec.front,
            position,
            position_since: seen.position_since,
            kernel: inside.kernel.borrow().clone(),
            phase: seen.phase,
            phase_since: seen.phase_since,
            over: seen.over.clone(),
            pods,
            started_at: inside.started_at,
            live: stats.live.load(Relaxed),
            total: stats.total.load(Relaxed),
            parked: stats.parked.load(Relaxed),
            failed: stats.failed.load(Relaxed),
            retried: stats.retried.load(Relaxed),
            refused: stats.refused.load(Relaxed),
            bytes_sent: stats.sent.load(Relaxed),
            bytes_received: stats.received.load(Relaxed),
            direct: stats.count(Way::Direct),
            tunnel: stats.count(Way::Tunnel),
            last_failure: stats.last_failure().map(|(at, message)| Failure { at, message }),
            api_lost: inside.feeds.loss.borrow().as_ref().map(|l| Failure { at: l.since, message: l.message.clone() }),
            cluster: inside.spec.cluster.clone(),
            numbers: Numbers {
                tunnels: inside.tunnels.by_name().map(|(name, count)| (name.to_owned(), count)).into(),
                tunnels_refused: inside
                    .tunnels
                    .refused_by_status()
                    .into_iter()
                    .map(|(status, count)| (status.to_string(), count))
                    .collect(),
                ..stats.numbers()
            },
        }
    }
}
