//! The sockets that browsers dial. Bound once and never closed before the forward ends, whatever becomes of the pods.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carrier::direct::keep_alive;
use super::session::{Shared, serve};
use super::spec::{LOCALHOST, Spec};
use super::stats::lock;

/// Connections at a time, in all.
const MAX_CONNECTIONS: usize = 1024;
/// Connections at a time from one address.
const MAX_PER_CLIENT: usize = 512;
/// After an accept failed for want of descriptors or memory; the connection waits in the kernel's queue meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("port {} on {} is in use{}", address.port(), address.ip(), holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    InUse {
        address: SocketAddr,
        /// Name and pid of the process that holds it, where this user may see it.
        holder: Option<String>,
    },
    #[error("{address} is no address of this machine")]
    NotOurs { address: IpAddr },
    #[error("port {} needs the rights of root", address.port())]
    Privileged { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// Bound sockets, pair by pair.
pub struct Listeners {
    sockets: Vec<(usize, TcpListener)>,
    /// What was bound, in the order of the pairs; port 0 is resolved.
    pub bound: Vec<Vec<SocketAddr>>,
}

/// Binds all sockets of a Spec. Of the two loopbacks that `localhost` means one is enough.
///
/// # Errors
/// See [`Error`]; then nothing stays bound.
pub async fn bind(spec: &Spec) -> Result<Listeners, Error> {
    let mut all = Listeners { sockets: Vec::new(), bound: Vec::new() };
    let is_localhost = spec.addresses == LOCALHOST;
    for (pair, wanted) in spec.listen_addresses().into_iter().enumerate() {
        let mut bound: Vec<SocketAddr> = Vec::new();
        for mut address in wanted {
            // With port 0 all addresses share the port that the first one got.
            address.set_port(bound.first().map_or(address.port(), SocketAddr::port));
            match TcpListener::bind(address).await {
                Ok(socket) => {
                    bound.push(socket.local_addr().map_err(|source| Error::Bind { address, source })?);
                    all.sockets.push((pair, socket));
                }
                Err(error)
                    if is_localhost
                        && address.is_ipv6()
                        && error.kind() != ErrorKind::AddrInUse
                        && !bound.is_empty() => {}
                Err(error) => return Err(name(error, address)),
            }
        }
        all.bound.push(bound);
    }
    Ok(all)
}

fn name(source: std::io::Error, address: SocketAddr) -> Error {
    match source.kind() {
        ErrorKind::AddrInUse => Error::InUse { address, holder: super::holder::of_port(address.port()) },
        ErrorKind::AddrNotAvailable => Error::NotOurs { address: address.ip() },
        ErrorKind::PermissionDenied => Error::Privileged { address },
        _ => Error::Bind { address, source },
    }
}

impl Listeners {
    /// One more socket for a pair: the private port that our own rules lead to.
    ///
    /// # Errors
    /// Of the bind.
    pub async fn private(&mut self, pair: usize, ip: IpAddr) -> Result<SocketAddr, Error> {
        let address = SocketAddr::new(ip, 0);
        let socket = TcpListener::bind(address).await.map_err(|source| name(source, address))?;
        let bound = socket.local_addr().map_err(|source| Error::Bind { address, source })?;
        self.sockets.push((pair, socket));
        Ok(bound)
    }

    /// Accepts until the forward closes, each connection in a task of `sessions`, which `abort` breaks off by RST.
    pub fn accept(self, shared: &Arc<Shared>, sessions: &TaskTracker, abort: &CancellationToken) {
        let doors = Arc::new(Doors::default());
        for (pair, socket) in self.sockets {
            let door = Door {
                pair,
                shared: shared.clone(),
                sessions: sessions.clone(),
                abort: abort.clone(),
                doors: doors.clone(),
            };
            let closing = shared.closing.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = door.accept(socket) => {}
                    () = closing.cancelled() => {}
                }
            });
        }
    }
}

/// Open connections by client, over all sockets of a forward.
#[derive(Default)]
struct Doors {
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Doors {
    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Entered> {
        let mut open = lock(&self.open);
        let all: usize = open.values().sum();
        let of_client = open.entry(ip).or_default();
        if all >= MAX_CONNECTIONS || *of_client >= MAX_PER_CLIENT {
            return None;
        }
        *of_client += 1;
        Some(Entered(self.clone(), ip))
    }
}

struct Entered(Arc<Doors>, IpAddr);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = lock(&self.0.open);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// One socket's accept loop.
struct Door {
    pair: usize,
    shared: Arc<Shared>,
    sessions: TaskTracker,
    abort: CancellationToken,
    doors: Arc<Doors>,
}

impl Door {
    async fn accept(&self, socket: TcpListener) {
        loop {
            match socket.accept().await {
                Ok((client, peer)) => self.admit(client, peer.ip()),
                // The client left before it was accepted.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(event = "accept-failed", error = %error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, client: TcpStream, peer: IpAddr) {
        // A probe that asks whether the NodePort works must not be answered by us.
        #[cfg(target_os = "linux")]
        if crate::observe::outsider::is_outsider(peer) {
            drop(client.set_zero_linger());
            return;
        }
        self.shared.stats.total.fetch_add(1, Relaxed);
        let Some(entered) = self.doors.enter(peer.to_canonical()) else {
            self.shared.stats.refused.fetch_add(1, Relaxed);
            self.shared.stats.failure(format!("limit of connections reached, {peer} turned away"));
            drop(client.set_zero_linger());
            return;
        };
        drop(client.set_nodelay(true));
        keep_alive(&client);
        let (shared, abort, pair) = (self.shared.clone(), self.abort.clone(), self.pair);
        self.sessions.spawn(async move {
            let _entered = entered;
            serve(client, pair, &shared, &abort).await;
        });
    }
}
