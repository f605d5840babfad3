//! How bytes reach a pod: directly, or through the API server. Chosen anew for every connection.

pub mod direct;
pub mod tunnel;

use tokio::net::TcpStream;

use super::balancer::{Choice, Way};

/// An open connection to a pod.
pub enum Upstream {
    Direct(TcpStream),
    Tunnel(tunnel::Stream),
}

/// Opens connections to pods.
#[derive(Default)]
pub struct Carriers {
    /// None where there is no API server to go through.
    pub tunnel: Option<tunnel::Tunnel>,
}

impl Carriers {
    /// Opens one.
    ///
    /// # Errors
    /// Of the dial; nothing was sent yet, so another pod may be tried.
    pub async fn open(&self, (endpoint, way): &Choice) -> std::io::Result<Upstream> {
        match (way, &self.tunnel) {
            (Way::Direct, _) => direct::open(endpoint).await.map(Upstream::Direct),
            (Way::Tunnel, Some(tunnel)) => tunnel.open(endpoint).await.map(Upstream::Tunnel),
            (Way::Tunnel, None) => Err(std::io::Error::other("there is no API server to go through")),
        }
    }
}

impl Upstream {
    /// Ends it so that the pod sees that something broke.
    pub fn abort(self) {
        match self {
            Upstream::Direct(stream) => drop(stream.set_zero_linger()),
            Upstream::Tunnel(stream) => stream.abort(),
        }
    }
}
