//! To the pod's own address.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::forward::endpoints::Endpoint;

/// A pod network answers within milliseconds or not at all; a longer wait would be felt in the browser.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Dials the pod.
///
/// # Errors
/// Of the dial: refused where the application listens on loopback only, or no route to that node's pods.
pub async fn open(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let address = SocketAddr::new(endpoint.ip, endpoint.port);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer from {address}")))??;
    stream.set_nodelay(true)?;
    keep_alive(&stream);
    Ok(stream)
}

/// Finds peers that vanished without a word. Best effort: without it they are found when something is sent.
pub fn keep_alive(stream: &TcpStream) {
    #[cfg(unix)]
    {
        use rustix::net::sockopt;
        let _ = sockopt::set_socket_keepalive(stream, true);
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
        #[cfg(target_os = "linux")]
        let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    }
    #[cfg(not(unix))]
    let _ = stream;
}
