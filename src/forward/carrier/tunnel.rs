//! Through the API server: port-forward, which dials localhost inside the pod's network namespace.
//!
//! One upgrade a connection, by kube's own client. Its stream ends alike whether the pod closed or the tunnel broke;
//! here the end of stream is only told where it was a clean one.

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Portforwarder;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::watch;

use crate::forward::endpoints::Endpoint;

/// The upgrade of one connection may take this long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The closing handshake may take this long; after it the end counts as clean, for the data came with its end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Leads into the pods of one namespace.
pub struct Tunnel {
    /// The client in use; it changes when the kubeconfig does.
    pub client: watch::Receiver<Client>,
    pub namespace: String,
}

impl Tunnel {
    /// Into the pods of a namespace.
    pub fn new(client: watch::Receiver<Client>, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// Opens a stream to a pod's port. That the port refuses shows at the first read.
    ///
    /// # Errors
    /// Where the API server refuses the upgrade: no such pod (404), no right to pods/portforward (403), or it is away.
    pub async fn open(&self, endpoint: &Endpoint) -> std::io::Result<Stream> {
        let pod = endpoint.pod.as_deref().ok_or_else(|| Error::other("no tunnel without a pod"))?;
        let pods: Api<Pod> = Api::namespaced(self.client.borrow().clone(), &self.namespace);
        let mut forwarder = tokio::time::timeout(OPEN_TIMEOUT, pods.portforward(pod, &[endpoint.port]))
            .await
            .map_err(|_| Error::new(ErrorKind::TimedOut, "the API server does not open a port-forward"))?
            .map_err(Error::other)?;
        let (Some(io), Some(error)) = (forwarder.take_stream(endpoint.port), forwarder.take_error(endpoint.port))
        else {
            return Err(Error::other("the port-forward has no such port"));
        };
        Ok(Stream { io: Some(io), error: Some(Box::pin(error)), forwarder: Some(forwarder), join: None })
    }
}

type Joined = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// One connection inside a tunnel.
pub struct Stream {
    io: Option<DuplexStream>,
    /// What the server says of the port, once it cannot be used.
    error: Option<Pin<Box<dyn Future<Output = Option<String>> + Send>>>,
    forwarder: Option<Portforwarder>,
    /// After the end of the stream: how the tunnel itself ended.
    join: Option<Joined>,
}

impl Stream {
    /// Drops the tunnel without closing it.
    pub fn abort(self) {
        if let Some(forwarder) = &self.forwarder {
            forwarder.abort();
        }
    }

    fn poll_error(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        match self.error.as_mut()?.as_mut().poll(cx) {
            Poll::Pending => None,
            Poll::Ready(said) => {
                self.error = None;
                said.map(|text| classify(&text))
            }
        }
    }
}

/// How a tunnel ended whose stream is at its end.
async fn end(forwarder: Portforwarder) -> std::io::Result<()> {
    match tokio::time::timeout(END_TIMEOUT, forwarder.join()).await {
        Err(_) | Ok(Ok(())) => Ok(()),
        // Closing our side may fail where theirs is closed already; that is no loss. kube does not export the type.
        Ok(Err(error)) if error.to_string().starts_with("failed to send a WebSocket message") => Ok(()),
        Ok(Err(error)) => Err(Error::new(ErrorKind::ConnectionReset, error)),
    }
}

/// Whether nothing of the connection reached the application (then another pod may take it), or it broke on the way.
/// Texts of kubelet and containerd, forwarders.md §9.
fn classify(text: &str) -> Error {
    let dial = ["connection refused", "failed to find sandbox", "network namespace for sandbox", "not found", "dial"];
    let kind = if dial.iter().any(|d| text.contains(d)) && !text.contains("reset by peer") {
        ErrorKind::ConnectionRefused
    } else {
        ErrorKind::ConnectionReset
    };
    Error::new(kind, text.trim().to_owned())
}

impl crate::forward::flow::Side for Stream {
    const HALF_CLOSE: bool = false;

    fn socket(&self) -> Option<&tokio::net::TcpStream> {
        None
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if let Some(error) = self.poll_error(cx) {
                return Poll::Ready(Err(error));
            }
            if let Some(join) = self.join.as_mut() {
                let ended = ready!(join.as_mut().poll(cx));
                self.join = None;
                return Poll::Ready(ended);
            }
            let Some(io) = self.io.as_mut() else {
                return Poll::Ready(Ok(()));
            };
            let before = buf.filled().len();
            ready!(Pin::new(io).poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // The end: let the tunnel finish, and believe the end only where the tunnel ended well.
            self.io = None;
            self.join = self.forwarder.take().map(|f| Box::pin(end(f)) as Joined);
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.io.as_mut() {
            Some(io) => Pin::new(io).poll_write(cx, buf),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.io.as_mut() {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.io.as_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_dial_is_told_from_a_broken_connection() {
        let refused = "error forwarding port 9999 to pod ID, uid : failed to execute portforward in network namespace \
                       \"x\": failed to connect to localhost:9999 inside namespace \"ID\", IPv4: dial tcp4 \
                       127.0.0.1:9999: connect: connection refused";
        assert_eq!(classify(refused).kind(), ErrorKind::ConnectionRefused);
        assert_eq!(classify("failed to find sandbox \"x\" in store: not found").kind(), ErrorKind::ConnectionRefused);
        assert_eq!(classify("read: connection reset by peer").kind(), ErrorKind::ConnectionReset);
        assert_eq!(classify("write: broken pipe").kind(), ErrorKind::ConnectionReset);
    }
}
