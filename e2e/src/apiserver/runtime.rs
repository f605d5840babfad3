//! What containerd 2 does with one port-forward: dial, copy both ways, and one second after either way has ended close
//! everything. It never half-closes towards the application. Source: internal/cri/server/sandbox_portforward_linux.go.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::rendezvous::Inbox;

/// "give a chance to terminate gracefully or timeout after 1s".
const GRACE: Duration = Duration::from_secs(1);
/// The buffer of Go's io.Copy.
const BUFFER: usize = 32 * 1024;
const NAMESPACE: &str = "/var/run/netns/cni-7d1f0a52-8c1e-4f1a-9f65-5d1d6f0b6a11";

/// Where the bytes of the application go.
pub trait Outbox: Send + Sync + 'static {
    /// Sends some.
    fn send(&self, bytes: &[u8]) -> impl Future<Output = std::io::Result<()>> + Send;
    /// No more follow; before what the caller says of an error.
    fn end(&self) -> impl Future<Output = ()> + Send;
}

/// Whether a pod's sandbox can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// The pod listens there.
    Up(SocketAddr),
    /// The pod is gone, but not forgotten.
    Closed,
    /// The pod is gone.
    Forgotten,
}

/// Carries one connection; the error is the text that the client is sent.
pub async fn port_forward<O: Outbox>(sandbox: Sandbox, id: &str, inbox: Inbox, out: Arc<O>) -> Result<(), String> {
    let address = match sandbox {
        Sandbox::Up(address) => address,
        Sandbox::Closed => return Err(format!("network namespace for sandbox \"{id}\" is closed")),
        Sandbox::Forgotten => return Err(format!("failed to find sandbox \"{id}\" in store: not found")),
    };
    let ended = enter(address, id, inbox, &out).await;
    out.end().await;
    ended.map_err(|why| format!("failed to execute portforward in network namespace \"{NAMESPACE}\": {why}"))
}

async fn enter<O: Outbox>(address: SocketAddr, id: &str, inbox: Inbox, out: &Arc<O>) -> Result<(), String> {
    let port = address.port();
    let app = TcpStream::connect(address).await.map_err(|error| {
        let why = if error.kind() == std::io::ErrorKind::ConnectionRefused {
            "connect: connection refused".to_owned()
        } else {
            error.to_string()
        };
        format!(
            "failed to connect to localhost:{port} inside namespace \"{id}\", IPv4: dial tcp4 127.0.0.1:{port}: {why} \
             IPv6 dial tcp6: address localhost: no suitable address found "
        )
    })?;
    let _ = app.set_nodelay(true);
    let app = Arc::new(app);
    let (closing, closed) = watch::channel(false);
    let (ended, mut ends) = mpsc::channel(2);
    // Both may outlive the connection, as they do in Go: one waits for room towards the client, the other for a byte of
    // it, and they find the connection closed afterwards.
    let held = Held { app: Arc::downgrade(&app), closed };
    tokio::spawn(down(held.clone(), Arc::clone(out), ended.clone()));
    tokio::spawn(up(inbox, held, port, ended));
    let first: Result<(), String> = ends.recv().await.unwrap_or(Ok(()));
    let second = tokio::time::timeout(GRACE, ends.recv()).await;
    closing.send_replace(true);
    drop(app);
    first.and(second.ok().flatten().unwrap_or(Ok(())))
}

/// The connection to the application, until its owner closes it.
#[derive(Clone)]
struct Held {
    app: Weak<TcpStream>,
    closed: watch::Receiver<bool>,
}

impl Held {
    /// Tries until the socket does not block; none once closed.
    async fn once<T>(
        &mut self,
        interest: Interest,
        mut act: impl FnMut(&TcpStream) -> std::io::Result<T>,
    ) -> Option<std::io::Result<T>> {
        loop {
            let app = self.app.upgrade()?;
            tokio::select! {
                biased;
                _ = self.closed.wait_for(|closed| *closed) => return None,
                ready = app.ready(interest) => if let Err(error) = ready { return Some(Err(error)) },
            }
            match act(&app) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                done => return Some(done),
            }
        }
    }
}

fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error.kind() {
        ConnectionReset => "connection reset by peer".to_owned(),
        BrokenPipe => "broken pipe".to_owned(),
        _ => error.to_string(),
    }
}

async fn down<O: Outbox>(mut app: Held, out: Arc<O>, ended: mpsc::Sender<Result<(), String>>) {
    let mut buffer = vec![0; BUFFER];
    let result = loop {
        let peer = app.app.upgrade().and_then(|a| a.peer_addr().ok()).map_or_else(String::new, |a| a.to_string());
        let Some(read) = app.once(Interest::READABLE, |app| app.try_read(&mut buffer)).await else { return };
        match read {
            Ok(0) => break Ok(()),
            Ok(count) => {
                if let Err(error) = out.send(&buffer[..count]).await {
                    break Err(words(&error));
                }
            }
            Err(error) => break Err(format!("read tcp4 127.0.0.1->{peer}: read: {}", words(&error))),
        }
    };
    let _ = ended.send(result).await;
}

async fn up(mut inbox: Inbox, mut app: Held, port: u16, ended: mpsc::Sender<Result<(), String>>) {
    let result = 'all: loop {
        let Some(bytes) = inbox.next().await else { break Ok(()) };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Some(written) = app.once(Interest::WRITABLE, |app| app.try_write(rest)).await else { return };
            match written {
                Ok(count) => rest = &rest[count..],
                Err(error) => break 'all Err(format!("write tcp4 127.0.0.1:{port}: write: {}", words(&error))),
            }
        }
    };
    let _ = ended.send(result).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;
    use std::time::Instant;

    use super::super::apps::{self, ANSWER, App};
    use super::super::rendezvous::pair;
    use super::*;

    #[derive(Default)]
    struct Sent(Mutex<Vec<u8>>);

    impl Outbox for Sent {
        async fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        }

        async fn end(&self) {}
    }

    /// One port-forward whose client asks and ends its side at once: what it is sent, how it ends, after how long.
    async fn half_closed(app: App) -> (Vec<u8>, Result<(), String>, Duration) {
        let sandbox = Sandbox::Up(apps::start(app));
        let (giver, inbox) = pair();
        let out = Arc::new(Sent::default());
        let began = Instant::now();
        let forward = tokio::spawn({
            let out = Arc::clone(&out);
            async move { port_forward(sandbox, "id", inbox, out).await }
        });
        tokio::select! {
            () = giver.give(b"request".to_vec()) => {}
            // Where nobody listens, nobody takes it.
            () = async { while !forward.is_finished() { tokio::task::yield_now().await } } => {}
        }
        giver.close();
        let ended = forward.await.unwrap();
        let sent = out.0.lock().unwrap().clone();
        (sent, ended, began.elapsed())
    }

    #[tokio::test]
    async fn an_answer_has_one_second_after_the_client_has_ended() {
        let (sent, ended, took) = half_closed(App::AnswersAfter(Duration::from_millis(300))).await;
        assert_eq!((sent.as_slice(), ended), (ANSWER, Ok(())));
        assert!(took >= Duration::from_millis(300), "{took:?}");
        let (sent, ended, took) = half_closed(App::AnswersAfter(Duration::from_secs(30))).await;
        assert_eq!((sent.as_slice(), ended), (&[][..], Ok(())), "an answer that comes later is lost without a word");
        assert!(took >= GRACE && took < Duration::from_secs(20), "{took:?}");
    }

    #[tokio::test]
    async fn a_failure_is_said_in_containerds_words() {
        let (_, ended, _) = half_closed(App::Refused).await;
        assert!(ended.as_ref().unwrap_err().contains(": connect: connection refused IPv6 dial tcp6"), "{ended:?}");
        let (_, ended, _) = half_closed(App::ResetAfter(0)).await;
        assert!(ended.as_ref().unwrap_err().ends_with("read: connection reset by peer"), "{ended:?}");
        let (_, inbox) = pair();
        let gone = port_forward(Sandbox::Closed, "id", inbox, Arc::new(Sent::default())).await;
        assert_eq!(gone.unwrap_err(), "network namespace for sandbox \"id\" is closed");
    }
}
