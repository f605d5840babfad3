//! Bulk in large pieces: the reader of a socket that proved to be busy is woken only when much has arrived
//! (SO_RCVLOWAT, Linux). Most of what a bulk transfer costs this process is being woken for each packet.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::SetSockOpt;
use nix::{setsockopt_impl, sockopt_impl};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

sockopt_impl!(
    /// Bytes that must be there before the socket counts as readable; its end and its errors count at once (socket(7)).
    /// rustix and socket2 do not have this option.
    ReceiveLow,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    i32
);

/// A read of so many bytes is one of a bulk transfer.
pub const LARGE: usize = 16 * 1024;
/// After so many bytes in large reads, one after another, the next ones are gathered.
const BULK: usize = 1024 * 1024;
/// So much is waited for.
const ENOUGH: i32 = 120 * 1024;
/// But not longer than this: the last piece of a transfer is smaller.
const PATIENCE: Duration = Duration::from_millis(1);

/// What is known of one socket's incoming bytes.
#[derive(Debug, Default)]
pub struct Gather {
    /// Bytes of large reads in a row.
    streak: usize,
    is_on: bool,
    /// While the reader waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Gather {
    /// So many bytes were read at once.
    pub fn took(&mut self, socket: &TcpStream, count: usize) {
        self.timer = None;
        if count < LARGE {
            self.stop(socket);
            return;
        }
        self.streak += count;
        if !self.is_on && self.streak >= BULK {
            self.is_on = ReceiveLow.set(socket, &ENOUGH).is_ok();
        }
    }

    /// Nothing can be read, and the task waits for the socket: it is woken in any case when the patience is over.
    pub fn wait(&mut self, cx: &mut Context<'_>, socket: &TcpStream) {
        if !self.is_on {
            return;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + PATIENCE)));
        if let Poll::Ready(()) = timer.as_mut().poll(cx) {
            self.stop(socket);
        }
    }

    /// Whatever arrives wakes the reader again; the kernel does so at once for what is there.
    pub fn stop(&mut self, socket: &TcpStream) {
        self.streak = 0;
        self.timer = None;
        if std::mem::take(&mut self.is_on) {
            let _ = ReceiveLow.set(socket, &1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::poll_fn;

    use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// The next piece as a relay reads it.
    async fn piece(socket: &mut TcpStream, gather: &mut Gather, buffer: &mut [u8]) -> usize {
        poll_fn(|cx| {
            let mut into = ReadBuf::new(buffer);
            match Pin::new(&mut *socket).poll_read(cx, &mut into) {
                Poll::Pending => {
                    gather.wait(cx, socket);
                    Poll::Pending
                }
                Poll::Ready(done) => {
                    done.unwrap();
                    gather.took(socket, into.filled().len());
                    Poll::Ready(into.filled().len())
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn all_of_it_arrives_and_a_remainder_is_not_waited_for() {
        let (mut near, mut far) = pair().await;
        let (mut gather, mut buffer) = (Gather::default(), vec![0; 128 * 1024]);
        let (mut sent, mut got, mut gathered) = (0, 0, false);
        for chunk in [700 * 1024, 5 * 1024 * 1024, 3, 200 * 1024, 1].repeat(3) {
            let bytes = vec![7u8; chunk];
            sent += chunk;
            let receive = async {
                while got < sent {
                    got += piece(&mut near, &mut gather, &mut buffer).await;
                    gathered |= gather.is_on;
                }
            };
            let ((), done) = tokio::join!(receive, far.write_all(&bytes));
            done.unwrap();
        }
        assert!(gathered, "a bulk transfer was never gathered");
        drop(far);
        assert_eq!(piece(&mut near, &mut gather, &mut buffer).await, 0, "the end is told");
    }

    #[tokio::test]
    async fn an_end_wakes_at_once() {
        let (mut near, mut far) = pair().await;
        let mut gather = Gather { streak: BULK, ..Gather::default() };
        gather.took(&near, LARGE);
        assert!(gather.is_on);
        far.write_all(b"less than enough").await.unwrap();
        drop(far);
        let mut buffer = [0; 64];
        assert_eq!(piece(&mut near, &mut gather, &mut buffer).await, 16);
        assert_eq!(piece(&mut near, &mut gather, &mut buffer).await, 0);
    }
}
