//! One connection to the API server: HTTP/1.1 requests until one of them is a watch or an upgrade.

use std::io::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::faults::{Refusal, Rung, lock};
use super::wire::{Io, Socket, raw, websocket};
use super::{Server, Upgraded, channel, spdystream};

/// A request without its body.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The next request; none where the client is done.
    async fn read(io: &mut Io) -> Result<Option<Self>> {
        let mut line = String::new();
        if io.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.replace("%2C", ","));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            io.read_line(&mut line).await?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let request = Self { method, path, query, headers };
        let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        io.read_exact(&mut vec![0; length]).await?;
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a header lists this word.
    fn lists(&self, name: &str, word: &str) -> bool {
        let all = self.headers.iter().filter(|(n, _)| n == name).flat_map(|(_, value)| value.split(','));
        all.map(str::trim).any(|w| w.eq_ignore_ascii_case(word))
    }

    fn parameters(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.split('&').filter_map(move |p| p.strip_prefix(name)?.strip_prefix('='))
    }

    fn rung(&self) -> Option<Rung> {
        if !self.lists("connection", "upgrade") {
            return None;
        }
        let websocket = self.method == "GET" && self.lists("upgrade", "websocket");
        if self.method == "POST" && self.lists("upgrade", "SPDY/3.1") {
            Some(Rung::Spdy)
        } else if websocket && self.lists("sec-websocket-protocol", TUNNELLED) {
            Some(Rung::Tunnelled)
        } else if websocket && self.lists("sec-websocket-protocol", CHANNEL) {
            Some(Rung::Channel)
        } else {
            None
        }
    }
}

const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNEL: &str = "v4.channel.k8s.io";
const PORTFORWARD: &str = "portforward.k8s.io";

/// Serves one connection to its end.
pub async fn serve(mut io: Io, socket: Arc<Socket>, server: Arc<Server>) -> Result<()> {
    while let Some(request) = Request::read(&mut io).await? {
        if let Some(pod) = request.path.strip_suffix("/portforward").and_then(|p| p.rsplit_once("/pods/")) {
            let pod = pod.1.to_owned();
            return upgrade(io, &request, &pod, socket, &server).await;
        }
        if request.parameters("watch").any(|w| w == "true" || w == "1") {
            return watch(&mut io, &request, &server).await;
        }
        let (code, body) = lock(&server.world).answer(&request.path);
        respond(&mut io, code, "application/json", &body.to_string()).await?;
    }
    Ok(())
}

async fn respond(io: &mut Io, code: u16, kind: &str, body: &str) -> Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    io.write_all((head + body).as_bytes()).await?;
    io.flush().await
}

/// Sends the changes after the asked version, and waits for more.
async fn watch(io: &mut Io, request: &Request, server: &Server) -> Result<()> {
    let mut next: usize = request.parameters("resourceVersion").next().and_then(|v| v.parse().ok()).unwrap_or(0);
    io.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    io.flush().await?;
    let mut changed = server.changed.subscribe();
    loop {
        changed.borrow_and_update();
        let events: Vec<String> = {
            let world = lock(&server.world);
            let new = world.changes.get(next..).unwrap_or_default();
            next += new.len();
            new.iter().filter(|(of, _)| *of == request.path).map(|(_, event)| format!("{event}\n")).collect()
        };
        for line in events {
            io.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
        }
        io.flush().await?;
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
            // A client sends nothing on a watch but its end.
            _ = io.fill_buf() => return Ok(()),
        }
    }
}

async fn upgrade(mut io: Io, request: &Request, pod: &str, socket: Arc<Socket>, server: &Arc<Server>) -> Result<()> {
    tokio::time::sleep(server.faults.delayed()).await;
    let found = lock(&server.world).pod(pod);
    let refusal = match (request.rung(), &found) {
        (None, _) => Some(Refusal::text(400, "Upgrade request required")),
        (Some(rung), _) if server.faults.refusal(rung).is_some() => server.faults.refusal(rung),
        (_, None) => Some(Refusal::status(404, "NotFound", &format!("pods \"{pod}\" not found"))),
        (Some(Rung::Spdy), _) if !request.lists("x-stream-protocol-version", PORTFORWARD) => Some(Refusal::text(
            403,
            "unable to negotiate protocol: client supports [], server accepts [portforward.k8s.io]",
        )),
        _ => None,
    };
    let (rung, (number, uid)) = match (refusal, request.rung(), found) {
        (None, Some(rung), Some(found)) => (rung, found),
        (refusal, ..) => {
            let refusal = refusal.unwrap_or_else(Refusal::pod_not_found);
            server.counters.refused.fetch_add(1, Relaxed);
            return respond(&mut io, refusal.status, refusal.kind, &refusal.body).await;
        }
    };
    let upgraded = Upgraded { server: Arc::clone(server), number, uid };
    let head = match rung {
        Rung::Spdy => format!("Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {PORTFORWARD}\r\n"),
        Rung::Tunnelled | Rung::Channel => {
            let key = request.header("sec-websocket-key").ok_or_else(|| Error::other("no key of a WebSocket"))?;
            let protocol = if rung == Rung::Tunnelled { TUNNELLED } else { CHANNEL };
            let accept = derive_accept_key(key.as_bytes());
            format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n")
        }
    };
    let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{head}\r\n");
    io.write_all(head.as_bytes()).await?;
    io.flush().await?;
    server.counters.accepted(rung);
    let _live = Live::new(server);
    match rung {
        Rung::Spdy => {
            let (reader, wire) = raw(io, &socket, &server.faults);
            spdystream::serve(reader, wire, upgraded).await;
        }
        Rung::Tunnelled => {
            let (messages, wire) = websocket(io, &socket, &server.faults).await;
            spdystream::serve(messages, Arc::clone(&wire), upgraded).await;
            // A client that is gone needs no Close.
            let _ = tokio::time::timeout(Duration::from_secs(1), wire.close()).await;
        }
        Rung::Channel => {
            let ports: Vec<u16> =
                request.parameters("ports").flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
            let (messages, wire) = websocket(io, &socket, &server.faults).await;
            channel::serve(messages, wire, &ports, upgraded).await;
        }
    }
    Ok(())
}

/// Counts an upgraded connection while it is open.
struct Live<'a>(&'a Server);

impl<'a> Live<'a> {
    fn new(server: &'a Server) -> Self {
        server.counters.live.fetch_add(1, Relaxed);
        Self(server)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.counters.live.fetch_sub(1, Relaxed);
    }
}
