//! A channel without room, as Go's unbuffered ones: whoever gives waits until it is taken. It is what lets a stuck
//! application stop a worker of spdystream, and with it everybody else.

use tokio::sync::{mpsc, oneshot, watch};

type Portion = (Vec<u8>, oneshot::Sender<()>);

/// The giving end.
pub struct Giver {
    portions: mpsc::Sender<Portion>,
    closed: watch::Sender<bool>,
}

/// The taking end.
pub struct Inbox {
    portions: mpsc::Receiver<Portion>,
    closed: watch::Receiver<bool>,
}

/// Both ends.
pub fn pair() -> (Giver, Inbox) {
    let (portions, taken) = mpsc::channel(1);
    let (closed, seen) = watch::channel(false);
    (Giver { portions, closed }, Inbox { portions: taken, closed: seen })
}

impl Giver {
    /// Waits until the bytes are taken or the stream is closed; for ever where nobody will take them any more.
    pub async fn give(&self, bytes: Vec<u8>) {
        let mut closed = self.closed.subscribe();
        let given = async {
            let (taken, seen) = oneshot::channel();
            if self.portions.send((bytes, taken)).await.is_err() || seen.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = given => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// Nothing more is given, and whoever waits goes on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

impl Inbox {
    /// The next bytes; none once closed.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        tokio::select! {
            biased;
            portion = self.portions.recv() => {
                let (bytes, taken) = portion?;
                // The giver may have gone on because of a close.
                let _ = taken.send(());
                Some(bytes)
            }
            _ = self.closed.wait_for(|closed| *closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn giving_takes_as_long_as_taking_and_a_close_ends_both() {
        let (giver, mut inbox) = pair();
        {
            let mut given = std::pin::pin!(giver.give(b"first".to_vec()));
            assert!((&mut given).now_or_never().is_none(), "given before it was taken");
            assert_eq!(inbox.next().now_or_never().unwrap().unwrap(), b"first");
            given.await;
        }
        let mut given = std::pin::pin!(giver.give(b"second".to_vec()));
        assert!((&mut given).now_or_never().is_none());
        giver.close();
        given.await;
        // What lies there is still read, as in Go one of two ready cases is taken.
        assert_eq!(inbox.next().await.unwrap(), b"second");
        assert_eq!(inbox.next().await, None);
    }

    #[tokio::test]
    async fn who_gives_to_nobody_waits_until_it_is_closed() {
        let (giver, inbox) = pair();
        drop(inbox);
        let mut given = std::pin::pin!(giver.give(b"lost".to_vec()));
        for _ in 0..3 {
            assert!((&mut given).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        giver.close();
        given.await;
    }
}
