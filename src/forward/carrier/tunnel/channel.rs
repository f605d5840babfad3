//! The last rung: one upgrade to v4.channel.k8s.io a connection, by kube's own client.
//!
//! Its stream ends alike whether the pod closed or the tunnel broke; here the end of stream is only told where it was
//! a clean one. The protocol cannot close one direction: our end is the pod's as well, and hides how the pod ended. So
//! ours waits for it ([`Side::tells_its_end`](crate::forward::flow::Side::tells_its_end)).

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Portforwarder;
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::said;

/// The upgrade of one connection may take this long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The closing handshake may take this long; after it the end counts as clean, for the data came with its end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens a stream to a pod's port. That the port refuses shows at the first read.
///
/// # Errors
/// Where the API server refuses the upgrade: no such pod (404), no right to pods/portforward (403), or it is away.
pub async fn open(client: Client, namespace: &str, pod: &str, port: u16) -> std::io::Result<Stream> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let mut forwarder = tokio::time::timeout(OPEN_TIMEOUT, pods.portforward(pod, &[port]))
        .await
        .map_err(|_| Error::new(ErrorKind::TimedOut, "the API server does not open a port-forward"))?
        .map_err(Error::other)?;
    let (Some(io), Some(error)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
        return Err(Error::other("the port-forward has no such port"));
    };
    Ok(Stream { io: Some(io), error: Some(Box::pin(error)), forwarder: Some(forwarder), join: None, closed: false })
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
    /// We closed it before the pod did: how that ended will not be known.
    closed: bool,
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
            Poll::Ready(text) => {
                self.error = None;
                text.map(|text| said::on_error_stream(&text))
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

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if let Some(error) = self.poll_error(cx) {
                return Poll::Ready(Err(error));
            }
            if let Some(join) = self.join.as_mut() {
                let ended = ready!(join.as_mut().poll(cx));
                self.join = None;
                return Poll::Ready(if self.closed { Err(ErrorKind::ConnectionAborted.into()) } else { ended });
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
            Some(io) => {
                ready!(Pin::new(io).poll_shutdown(cx))?;
                self.closed = true;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}
