//! Data threads: each has a runtime, listening sockets and tunnels of its own, and a connection never leaves the thread
//! that accepted it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carrier::Carriers;
use super::doors::Refusal;
use super::listener::{Listeners, Socket};
use super::relay::Replay;
use super::session::{Client, Shared, number, serve};

/// More threads than this gain nothing: the kernel's own work is the larger part.
pub const MOST: usize = 8;
/// After an accept failed for want of descriptors or memory; the connection waits in the kernel's queue meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that no new client takes: who was let in still has to be led to a pod, and status, log and the watches
/// must go on. A process that has few gives up a quarter of them.
#[cfg(unix)]
const SPARE: u64 = 64;

/// How many data threads this machine gets.
pub fn width() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST)
}

/// What the sessions of one data thread share.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub carriers: Carriers,
    /// This thread's part of [`Shared::closing`].
    pub closing: CancellationToken,
    sessions: TaskTracker,
    descriptors: Descriptors,
}

/// All data threads of a forward.
pub struct Workers {
    threads: Vec<Thread>,
    go: CancellationToken,
    leave: CancellationToken,
    abort: CancellationToken,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

struct Thread {
    handle: Handle,
    ended: oneshot::Receiver<()>,
    join: std::thread::JoinHandle<()>,
}

impl Workers {
    /// One thread for each of `carriers`; they share the sockets out. Nobody is accepted yet.
    ///
    /// # Errors
    /// Where the system gives no thread or no descriptors for it.
    pub fn start(shared: &Arc<Shared>, carriers: Vec<Carriers>, listeners: Listeners) -> std::io::Result<Self> {
        let descriptors = Descriptors::raised();
        let (go, leave, abort) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let mut shares: Vec<Vec<Socket>> = listeners.share_out(carriers.len());
        let mut threads = Vec::new();
        for (number, carriers) in carriers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let worker = Arc::new(Worker {
                shared: shared.clone(),
                carriers,
                closing: shared.closing.child_token(),
                sessions: TaskTracker::new(),
                descriptors,
            });
            let sockets = shares.pop().unwrap_or_default();
            let (end, ended) = oneshot::channel();
            let (go, leave, abort) = (go.clone(), leave.clone(), abort.clone());
            let join = std::thread::Builder::new().name(format!("data-{number}")).spawn(move || {
                runtime.block_on(worker.run(sockets, &go, &leave, &abort));
                // Drops what is still open, which ends by RST.
                drop(runtime);
                let _ = end.send(());
            })?;
            threads.push(Thread { handle, ended, join });
        }
        Ok(Self { threads, go, leave, abort })
    }

    /// Accepts from now on, until `shared.closing`.
    pub fn serve(&self) {
        self.go.cancel();
    }

    /// Accepts no more, as a successor holds the sockets too; who is here stays as long as he likes.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// The runtimes. Each one answers as long as its thread gets to its connections.
    pub fn handles(&self) -> Vec<Handle> {
        self.threads.iter().map(|t| t.handle.clone()).collect()
    }

    /// Waits until the sessions ended after `shared.closing` or [`Workers::leave`]; `hurry` ends those that are still open by RST.
    pub async fn drain(mut self, hurry: impl Future<Output = ()>) {
        let mut ended: Vec<_> = Vec::new();
        let mut joins = Vec::new();
        for thread in self.threads.drain(..) {
            ended.push(thread.ended);
            joins.push(thread.join);
        }
        let mut all = std::pin::pin!(futures::future::join_all(ended));
        tokio::select! {
            _ = &mut all => {}
            () = hurry => {
                self.abort.cancel();
                all.await;
            }
        }
        // They ended already, or are about to.
        for join in joins {
            if join.join().is_err() {
                tracing::error!(event = "data-thread-panicked");
            }
        }
    }
}

/// How many descriptors this process may have.
#[derive(Debug, Clone, Copy)]
struct Descriptors {
    /// None: without end, or unknown.
    #[cfg_attr(not(unix), expect(dead_code, reason = "counted nowhere else"))]
    limit: Option<u64>,
}

impl Descriptors {
    /// After as many were allowed as may be: each connection takes two, and the usual soft limit of 1,024 is there for
    /// programs that use select(2). Best effort: where it stays low, connections wait in the kernel's queue.
    fn raised() -> Self {
        #[cfg(unix)]
        {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let limit = getrlimit(Resource::Nofile);
            if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
                tracing::info!(event = "descriptor-limit", error = %error);
            }
            Self { limit: getrlimit(Resource::Nofile).current }
        }
        #[cfg(not(unix))]
        Self { limit: None }
    }

    /// Whether this one is among those that are kept for other things, or may be when each of the `undialled`
    /// connections has dialled its pod. The system gives the lowest number that is free.
    #[cfg(unix)]
    fn are_near_their_end(self, one: &impl std::os::fd::AsRawFd, undialled: u64) -> bool {
        let edge = self.limit.map(|limit| limit - SPARE.min(limit / 4));
        edge.is_some_and(|edge| u64::try_from(one.as_raw_fd()).is_ok_and(|number| number + undialled >= edge))
    }

    /// Whether the next one would be, or there is none.
    #[cfg(unix)]
    fn are_short(self, listener: &TcpListener, undialled: u64) -> bool {
        rustix::io::fcntl_dupfd_cloexec(listener, 0).map_or(true, |next| self.are_near_their_end(&next, undialled))
    }

    #[cfg(unix)]
    fn why(self) -> String {
        let limit = self.limit.map_or_else(|| "the system's".to_owned(), |limit| limit.to_string());
        format!("new connections wait: too many files are open (limit: {limit})")
    }
}

impl Worker {
    async fn run(
        self: Arc<Self>,
        sockets: Vec<Socket>,
        go: &CancellationToken,
        leave: &CancellationToken,
        abort: &CancellationToken,
    ) {
        tokio::select! {
            () = go.cancelled() => {}
            () = abort.cancelled() => return,
        }
        let mut doors: Vec<_> = sockets.into_iter().map(|s| tokio::spawn(self.clone().accept(s))).collect();
        doors.push(tokio::spawn(self.clone().forget_gone_pods()));
        tokio::select! {
            () = self.closing.cancelled() => {}
            () = leave.cancelled() => {}
            () = abort.cancelled() => return,
        }
        for door in doors {
            door.abort();
            // Its socket is closed when this returns.
            let _ = door.await;
        }
        self.sessions.close();
        tokio::select! {
            () = self.sessions.wait() => {}
            () = abort.cancelled() => {}
        }
    }

    /// Closes the idle tunnels into pods that are no endpoints any more.
    async fn forget_gone_pods(self: Arc<Self>) {
        let Some(tunnel) = &self.carriers.tunnel else { return };
        let mut endpoints = self.shared.endpoints.clone();
        while endpoints.changed().await.is_ok() {
            let there: Vec<String> =
                endpoints.borrow_and_update().all().filter_map(|e| e.uid.clone().or_else(|| e.pod.clone())).collect();
            tunnel.retain(|uid| there.iter().any(|one| one == uid));
        }
    }

    async fn accept(self: Arc<Self>, socket: Socket) {
        let pair = socket.pair;
        let listener = socket.listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket.listener));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(event = "not-listening", error = %error);
                self.shared.stats.failure(format!("a listening socket is lost: {error}"));
                return;
            }
        };
        loop {
            match listener.accept().await {
                Ok((mut client, peer)) => {
                    #[cfg(not(target_os = "linux"))]
                    {
                        // Elsewhere it inherits nothing from the listening socket.
                        drop(client.set_nodelay(true));
                        super::carrier::direct::keep_alive(&client);
                    }
                    #[cfg(unix)]
                    let is_last =
                        self.descriptors.are_near_their_end(&client, self.shared.stats.undialled.load(Relaxed));
                    let replay = Replay::new(brought(&mut client));
                    self.admit(client, peer.ip(), pair, replay);
                    #[cfg(unix)]
                    if is_last {
                        self.wait_for_descriptors(&listener).await;
                    }
                }
                // The client left before it was accepted.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                // For want of memory, or of descriptors, of this process or of all together.
                Err(error) => {
                    if self.shared.doors.is_worth_saying(self.shared.now()) {
                        tracing::warn!(event = "accept-failed", error = %error);
                    }
                    self.shared.stats.failure(format!("accepting fails: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Leaves new connections in the kernel's queue until there is room for one.
    #[cfg(unix)]
    async fn wait_for_descriptors(&self, listener: &TcpListener) {
        let why = self.descriptors.why();
        let mut is_said = false;
        while self.descriptors.are_short(listener, self.shared.stats.undialled.load(Relaxed)) {
            if !std::mem::replace(&mut is_said, true) && self.shared.doors.is_worth_saying(self.shared.now()) {
                tracing::warn!(event = "accept-waits", limit = self.descriptors.limit);
            }
            self.shared.stats.failure(why.clone());
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn admit(self: &Arc<Self>, client: TcpStream, peer: IpAddr, pair: usize, replay: Replay) {
        // A probe that asks whether the NodePort works must not be answered by us.
        #[cfg(target_os = "linux")]
        if crate::observe::outsider::is_outsider(peer) {
            drop(client.set_zero_linger());
            return;
        }
        let stats = &self.shared.stats;
        stats.total.fetch_add(1, Relaxed);
        let (peer, number) = (peer.to_canonical(), number());
        let open = stats.live.fetch_add(1, Relaxed);
        if let Err(refusal) = self.shared.doors.enter(peer, open) {
            stats.live.fetch_sub(1, Relaxed);
            stats.refused.fetch_add(1, Relaxed);
            let why = match refusal {
                Refusal::NotAllowed => "its address is not allowed",
                Refusal::Full => "the limit of connections is reached",
                Refusal::TooMany => "its limit of connections is reached",
            };
            if self.shared.doors.is_worth_saying(self.shared.now()) {
                tracing::info!(event = "refused", connection = number, client = %peer, reason = why);
            }
            stats.failure(format!("{peer} turned away: {why}"));
            drop(client.set_zero_linger());
            return;
        }
        let client = Client::new(client, peer, number, self.clone());
        self.sessions.spawn(serve(client, pair, replay));
    }
}

/// What a new connection's client has sent already. A request is most often there by now, and need not be waited for.
fn brought(client: &mut TcpStream) -> Vec<u8> {
    /// A request without a body commonly fits; the rest of a longer one is read later.
    const COMMON: usize = 4096;
    let mut bytes = [0; COMMON];
    let mut buffer = ReadBuf::new(&mut bytes);
    // Nobody has to be woken: who reads next says so himself, and meets an end or an error again.
    let mut nobody = Context::from_waker(Waker::noop());
    match Pin::new(client).poll_read(&mut nobody, &mut buffer) {
        Poll::Ready(Ok(())) => buffer.filled().to_vec(),
        _ => Vec::new(),
    }
}
