//! Port-forward over WebSocket channels (v4.channel.k8s.io): channel 2i is the data of port i, 2i+1 its errors, and a
//! channel cannot be closed by itself. Source: cri-streaming portforward/websocket.go.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinSet;

use super::Upgraded;
use super::rendezvous::{Giver, pair};
use super::runtime::{Outbox, port_forward};
use super::wire::{Messages, Wire};

struct Data {
    wire: Arc<Wire>,
    channel: u8,
}

impl Outbox for Data {
    async fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.wire.message(&[&[self.channel], bytes].concat()).await
    }

    async fn end(&self) {}
}

/// Serves until the client leaves or all ports are done.
pub async fn serve(mut messages: Messages, wire: Arc<Wire>, ports: &[u16], upgraded: Upgraded) {
    let upgraded = Arc::new(upgraded);
    let mut forwards = JoinSet::new();
    let mut givers: Vec<Giver> = Vec::new();
    for (channel, port) in (0u8..).step_by(2).zip(ports.iter().copied()) {
        for channel in [channel, channel + 1] {
            let [low, high] = port.to_le_bytes();
            if wire.message(&[channel, low, high]).await.is_err() {
                return;
            }
        }
        let (giver, inbox) = pair();
        givers.push(giver);
        let (wire, upgraded) = (Arc::clone(&wire), Arc::clone(&upgraded));
        upgraded.counters.streams.fetch_add(1, Relaxed);
        forwards.spawn(async move {
            let out = Arc::new(Data { wire: Arc::clone(&wire), channel });
            let id = upgraded.sandbox_id();
            if let Err(why) = port_forward(upgraded.sandbox(port), &id, inbox, out).await {
                let text = format!("error forwarding port {port} to pod {id}, uid : {why}");
                let _ = wire.message(&[&[channel + 1], text.as_bytes()].concat()).await;
            }
        });
    }
    let reading = async {
        while let Ok(Some(message)) = messages.next().await {
            let Some((channel, bytes)) = message.split_first() else { continue };
            if let Some(giver) = givers.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0) {
                giver.give(bytes.to_vec()).await;
            }
        }
    };
    let all_done = async { while forwards.join_next().await.is_some() {} };
    tokio::select! {
        () = reading => {}
        () = all_done => {}
    }
    givers.iter().for_each(Giver::close);
    while forwards.join_next().await.is_some() {}
    let _ = wire.close().await;
}
