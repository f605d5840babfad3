//! One upgraded connection as moby/spdystream serves it under kubelet's port-forward handler: five workers with queues of
//! 50 frames, streams that block them, no windows, and PINGs that go through the same queues.
//! Source: spdystream v0.5 connection.go, cri-streaming portforward/httpstream.go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Upgraded;
use super::faults::lock;
use super::rendezvous::{Giver, Inbox, pair};
use super::runtime::{Outbox, port_forward};
use super::spdy::{Decoder, Encoder, Frame, data_head, ping, reset};
use super::wire::Wire;

const WORKERS: usize = 5;
const QUEUE: usize = 50;
/// A pair of streams is complete by then, or is given up.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);

struct Stream {
    id: u32,
    headers: HashMap<String, String>,
    inbox: Mutex<Option<Inbox>>,
    giver: Giver,
    /// A reply went out; frames before it are dropped.
    replied: AtomicBool,
    /// We send nothing more.
    finished: AtomicBool,
    client_finished: AtomicBool,
}

struct Connection {
    wire: Arc<Wire>,
    encoder: tokio::sync::Mutex<Encoder>,
    streams: Mutex<HashMap<u32, Arc<Stream>>>,
    pairs: Mutex<HashMap<String, Pair>>,
    last: AtomicU32,
    upgraded: Upgraded,
}

#[derive(Default)]
struct Pair {
    data: Option<Arc<Stream>>,
    error: Option<Arc<Stream>>,
}

/// Serves until the client leaves.
pub async fn serve<R: AsyncRead + Unpin>(mut reader: R, wire: Arc<Wire>, upgraded: Upgraded) {
    let connection = Arc::new(Connection {
        wire,
        encoder: tokio::sync::Mutex::default(),
        streams: Mutex::default(),
        pairs: Mutex::default(),
        last: AtomicU32::new(0),
        upgraded,
    });
    let mut workers = JoinSet::new();
    let queues: Vec<mpsc::Sender<Frame>> = (0..WORKERS)
        .map(|_| {
            let (queue, mut frames) = mpsc::channel(QUEUE);
            let connection = Arc::clone(&connection);
            workers.spawn(async move {
                while let Some(frame) = frames.recv().await {
                    // A client that cannot be written to is about to be found gone by the reader.
                    let _ = connection.handle(frame).await;
                }
            });
            queue
        })
        .collect();
    let mut decoder = Decoder::default();
    let mut turn = 0;
    while let Ok(Some(frame)) = decoder.read(&mut reader).await {
        let worker = match &frame {
            Frame::Syn { id, headers, fin } => {
                if !connection.add(*id, headers, *fin) {
                    let _ = connection.wire.send(&[&reset(*id, true)], &[]).await;
                    continue;
                }
                *id as usize % WORKERS
            }
            Frame::Data { id, .. } | Frame::Reset { id } => *id as usize % WORKERS,
            Frame::Ping { .. } | Frame::Other(_) => {
                turn = (turn + 1) % WORKERS;
                turn
            }
            Frame::GoAway => break,
        };
        if queues[worker].send(frame).await.is_err() {
            break;
        }
    }
    drop(queues);
    // What was read is handled first; a worker that is stuck would be so for ever.
    let _ = tokio::time::timeout(Duration::from_secs(1), async { while workers.join_next().await.is_some() {} }).await;
    for stream in std::mem::take(&mut *lock(&connection.streams)).values() {
        stream.giver.close();
    }
}

impl Connection {
    /// Takes a stream up; false where its number goes backwards.
    fn add(&self, id: u32, headers: &[(String, String)], fin: bool) -> bool {
        if id < self.last.load(Relaxed) || id.is_multiple_of(2) {
            return false;
        }
        self.last.store(id + 2, Relaxed);
        let (giver, inbox) = pair();
        if fin {
            giver.close();
        }
        let stream = Stream {
            id,
            headers: headers.iter().cloned().collect(),
            inbox: Mutex::new(Some(inbox)),
            giver,
            replied: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            client_finished: AtomicBool::new(fin),
        };
        lock(&self.streams).insert(id, Arc::new(stream));
        true
    }

    fn stream(&self, id: u32) -> Option<Arc<Stream>> {
        lock(&self.streams).get(&id).cloned()
    }

    async fn handle(self: &Arc<Self>, frame: Frame) -> std::io::Result<()> {
        match frame {
            Frame::Syn { id, .. } => self.opened(id).await,
            Frame::Data { id, bytes, fin } => {
                let Some(stream) = self.stream(id).filter(|s| s.replied.load(Relaxed)) else { return Ok(()) };
                if !bytes.is_empty() {
                    stream.giver.give(bytes).await;
                }
                if fin {
                    stream.giver.close();
                    stream.client_finished.store(true, Relaxed);
                    if stream.finished.load(Relaxed) {
                        lock(&self.streams).remove(&id);
                    }
                }
                Ok(())
            }
            Frame::Reset { id } => {
                if let Some(stream) = lock(&self.streams).remove(&id) {
                    stream.giver.close();
                    stream.finished.store(true, Relaxed);
                }
                Ok(())
            }
            Frame::Ping { id } if id % 2 == 1 => {
                self.upgraded.counters.pings.fetch_add(1, Relaxed);
                self.wire.send(&[&ping(id)], &[]).await
            }
            Frame::Ping { .. } | Frame::Other(_) | Frame::GoAway => Ok(()),
        }
    }

    async fn opened(self: &Arc<Self>, id: u32) -> std::io::Result<()> {
        let Some(stream) = self.stream(id) else { return Ok(()) };
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        let (kind, port, request) = (header("streamtype"), header("port"), header("requestid"));
        if !matches!(kind.as_str(), "data" | "error") || port.parse().unwrap_or(0u16) == 0 || request.is_empty() {
            return self.reset(&stream).await;
        }
        {
            // Reply headers are compressed in the order in which they are sent.
            let mut encoder = self.encoder.lock().await;
            self.wire.send(&[&encoder.reply(id)], &[]).await?;
        }
        stream.replied.store(true, Relaxed);
        let complete = {
            let mut pairs = lock(&self.pairs);
            let pair = pairs.entry(request.clone()).or_insert_with(|| {
                let (connection, request) = (Arc::downgrade(self), request.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(PAIR_TIMEOUT).await;
                    if let Some(connection) = connection.upgrade() {
                        connection.give_up(&request).await;
                    }
                });
                Pair::default()
            });
            let place = if kind == "data" { &mut pair.data } else { &mut pair.error };
            *place = Some(Arc::clone(&stream));
            match (&pair.data, &pair.error) {
                (Some(data), Some(error)) => Some((Arc::clone(data), Arc::clone(error))),
                _ => None,
            }
        };
        if let Some((data, error)) = complete {
            lock(&self.pairs).remove(&request);
            self.upgraded.counters.streams.fetch_add(1, Relaxed);
            tokio::spawn(Arc::clone(self).forward(data, error));
        }
        Ok(())
    }

    async fn give_up(&self, request: &str) {
        let pair = lock(&self.pairs).remove(request);
        if let Some(error) = pair.and_then(|pair| pair.error) {
            let text = format!("(conn=0xc000416160, request={request}) timed out waiting for streams");
            let _ = self.write(&error, text.as_bytes()).await;
        }
    }

    async fn forward(self: Arc<Self>, data: Arc<Stream>, error: Arc<Stream>) {
        let port = data.headers.get("port").and_then(|p| p.parse().ok()).unwrap_or(0);
        let Some(inbox) = lock(&data.inbox).take() else { return };
        let out = Arc::new(DataStream { connection: Arc::clone(&self), stream: Arc::clone(&data) });
        let id = self.upgraded.sandbox_id();
        let ended = port_forward(self.upgraded.sandbox(port), &id, inbox, out).await;
        // Whoever is gone by now is told nothing.
        if let Err(why) = ended {
            let text = format!("error forwarding port {port} to pod {id}, uid : {why}");
            let _ = self.write(&error, text.as_bytes()).await;
            if !self.upgraded.faults.is_old() {
                let _ = self.reset(&data).await;
                let _ = self.reset(&error).await;
            }
        }
        let _ = self.finish(&error).await;
        let _ = self.finish(&data).await;
    }

    async fn write(&self, stream: &Stream, bytes: &[u8]) -> std::io::Result<()> {
        let [id, length] = data_head(stream.id, bytes.len(), false);
        self.wire.send(&[&id, &length], bytes).await
    }

    /// FIN, once.
    async fn finish(&self, stream: &Stream) -> std::io::Result<()> {
        if stream.client_finished.load(Relaxed) {
            lock(&self.streams).remove(&stream.id);
        }
        if stream.finished.swap(true, Relaxed) {
            return Ok(());
        }
        let [id, length] = data_head(stream.id, 0, true);
        self.wire.send(&[&id, &length], &[]).await
    }

    /// RST, which is no frame where a FIN went before.
    async fn reset(&self, stream: &Stream) -> std::io::Result<()> {
        lock(&self.streams).remove(&stream.id);
        stream.giver.close();
        if stream.finished.swap(true, Relaxed) {
            return Ok(());
        }
        self.wire.send(&[&reset(stream.id, false)], &[]).await
    }
}

struct DataStream {
    connection: Arc<Connection>,
    stream: Arc<Stream>,
}

impl Outbox for DataStream {
    async fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.connection.write(&self.stream, bytes).await
    }

    async fn end(&self) {
        let _ = self.connection.finish(&self.stream).await;
    }
}
