//! Through the API server: port-forward, which dials localhost inside the pod's network namespace.
//!
//! ```text
//! session -> Tunnel::open -> pool: a lease -> link: SPDY frames [in WebSocket messages] -> wire: TLS -> API server
//!                              ^ upgrade: the ladder of protocols
//! ```
//!
//! A tunnel carries one connection at a time and is used for the next one when it is proven free: a stuck application
//! blocks nobody else, and a connection costs no upgrade.

mod channel;
mod fan;
mod link;
mod mux;
mod pool;
mod said;
mod spdy;
mod stats;
mod stream;
mod upgrade;
mod websocket;
mod wire;

use std::io::{Error, Result};
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use crate::forward::endpoints::Endpoint;
pub use stats::TunnelStats;
pub use stream::Stream;
pub use upgrade::Rung;

/// Tunnels of one forward in all.
pub const MOST_TUNNELS: usize = 256;

/// Leads into the pods of one namespace. To be used on one runtime, which serves its sockets.
pub struct Tunnel {
    pool: Arc<pool::Pool>,
    client: watch::Receiver<Client>,
    namespace: String,
}

impl Tunnel {
    /// One of several, with the client in use, which changes when the kubeconfig does, at most `limit` tunnels of its
    /// own, and common counters.
    pub fn sharing(client: watch::Receiver<Client>, namespace: String, limit: usize, stats: Arc<TunnelStats>) -> Self {
        let pool = Arc::new(pool::Pool::new(client.clone(), namespace.clone(), limit, stats));
        Self { pool, client, namespace }
    }

    /// Opens a stream to a pod's port. That the port refuses shows at the first read, as ConnectionRefused.
    ///
    /// # Errors
    /// NotFound: the pod is gone. PermissionDenied: no right to create pods/portforward. Else: the API server is away.
    pub async fn open(&self, endpoint: &Endpoint) -> Result<Stream> {
        let pod = endpoint.pod.as_deref().ok_or_else(|| Error::other("no tunnel without a pod"))?;
        let uid = endpoint.uid.as_deref().unwrap_or(pod);
        if let Some(lease) = self.pool.lease(pod, uid).await? {
            self.pool.stats.carried(self.pool.rung());
            return Ok(Stream::leased(lease, endpoint.port));
        }
        let client = self.client.borrow().clone();
        let stream = channel::open(client, &self.namespace, pod, endpoint.port).await?;
        self.pool.stats.carried(Rung::Channel);
        Ok(Stream::channel(stream))
    }

    /// Closes idle tunnels into pods whose uid is not among those that are `there`.
    pub fn retain(&self, there: impl Fn(&str) -> bool) {
        self.pool.retain(there);
    }
}
