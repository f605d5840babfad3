//! How bytes reach a pod: directly, or through the API server. Chosen anew for every connection.

pub mod direct;
pub mod tunnel;

use super::balancer::{Choice, Way};

/// An open connection to a pod.
pub enum Upstream {
    Direct(direct::Direct),
    /// Boxed: it is the larger one, and most connections have none.
    Tunnel(Box<tunnel::Stream>),
}

/// Opens connections to pods, for one data thread.
#[derive(Default)]
pub struct Carriers {
    /// None where there is no API server to go through.
    pub tunnel: Option<tunnel::Tunnel>,
}

impl Carriers {
    /// Opens one, and says how much of `first`, the bytes to begin with, went out already.
    ///
    /// # Errors
    /// Of the dial; another pod may be tried.
    pub async fn open(&self, choice: &Choice, first: &[u8]) -> std::io::Result<(Upstream, usize)> {
        match (choice.way, &self.tunnel) {
            (Way::Direct, _) => {
                direct::open(choice.endpoint(), first).await.map(|(d, sent)| (Upstream::Direct(d), sent))
            }
            (Way::Tunnel, Some(tunnel)) => {
                // Its future is large, and would make every connection's as large.
                let stream = Box::pin(tunnel.open(choice.endpoint())).await?;
                Ok((Upstream::Tunnel(Box::new(stream)), 0))
            }
            (Way::Tunnel, None) => Err(std::io::Error::other("there is no API server to go through")),
        }
    }
}

impl Upstream {
    /// Ends it so that the pod sees that something broke.
    pub fn abort(self) {
        match self {
            Upstream::Direct(direct) => direct.abort(),
            Upstream::Tunnel(stream) => stream.abort(),
        }
    }
}
