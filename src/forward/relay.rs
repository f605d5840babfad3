//! Copies both ways between a client and a pod, keeps half-closes, and remembers what was sent until something came back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stats::{Stats, lock};

/// What a client sent is kept up to this size until the pod's first byte.
const REPLAY_LIMIT: usize = 64 * 1024;
const BUFFER: usize = 32 * 1024;
/// After one side's end the other may be silent this long.
const LINGER: Duration = Duration::from_secs(60);
/// A client that closes after an answer, and sends nothing more, is done after so long a silence of the pod (tunnel).
const QUIET: Duration = Duration::from_millis(200);
/// And after a small answer, which comes in one piece, so long.
const SHORT_QUIET: Duration = Duration::from_millis(2);
const SMALL: u64 = 64 * 1024;

/// While the forward closes, a connection on which nothing followed an answer for so long is idle.
const IDLE: Duration = Duration::from_millis(500);

/// How a relay ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides ended as they wished.
    Clean,
    /// The client broke off.
    ClientLeft,
    /// Nothing reached the application: any connection may be tried elsewhere.
    NotDelivered(String),
    /// The pod broke off without a byte of answer to a request that is safe to repeat (RFC 9110 §9.2.1).
    Unanswered(String),
    /// The pod broke off.
    Broken(String),
}

/// What the client sent so far, while it may have to be sent again.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    /// The client sent its FIN.
    ended: bool,
    /// More was sent than is kept, or an answer began: there is no going back.
    forgotten: bool,
}

impl Replay {
    /// Whether more may be taken up before a pod is there.
    pub fn has_room(&self) -> bool {
        !self.ended && self.bytes.len() < REPLAY_LIMIT
    }

    /// Reads once from a client that waits. Cancel safe.
    pub async fn take_up(&mut self, client: &mut TcpStream) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        match client.read(&mut buffer).await? {
            0 => self.ended = true,
            n => self.bytes.extend_from_slice(&buffer[..n]),
        }
        Ok(())
    }

    fn record(&mut self, bytes: &[u8]) {
        if self.forgotten {
            return;
        }
        if self.bytes.len() + bytes.len() > REPLAY_LIMIT {
            self.forget();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn forget(&mut self) {
        self.forgotten = true;
        self.bytes = Vec::new();
    }

    /// One whole request without a body, of a method that changes nothing.
    fn is_safe_request(&self) -> bool {
        !self.forgotten
            && [&b"GET "[..], b"HEAD ", b"OPTIONS "].iter().any(|m| self.bytes.starts_with(m))
            && self.bytes.windows(4).position(|w| w == b"\r\n\r\n") == self.bytes.len().checked_sub(4)
    }
}

struct Progress<'a> {
    replay: Mutex<&'a mut Replay>,
    /// Bytes that the pod's side took.
    delivered: AtomicU64,
    answered: AtomicBool,
    /// Writing to the pod failed: an end of its stream is no clean one any more.
    broken: AtomicBool,
    /// The last bytes went to the client.
    last_down: AtomicBool,
    /// Bytes of the answer so far.
    answer: AtomicU64,
    began: Instant,
    /// Milliseconds after `began`.
    touched: AtomicU64,
}

enum Side {
    /// The client's, whatever it was: nobody is left to be told.
    Client,
    Pod(std::io::Error),
    /// The pod closed without an answer.
    Empty,
}

enum Up {
    /// Client's FIN was passed on, or need not be.
    Ended,
    /// The client is done and the tunnel has nothing more to say.
    Over,
}

/// Relays until both sides ended or one broke. With `half_close` the client's FIN is passed on at once; without it
/// (kube's tunnel closes wholly then) the pod is given time to answer first.
pub async fn relay<R, W>(
    client: &mut TcpStream,
    reader: R,
    writer: W,
    half_close: bool,
    replay: &mut Replay,
    stats: &Stats,
    closing: &CancellationToken,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let progress = Progress {
        replay: Mutex::new(replay),
        delivered: AtomicU64::new(0),
        answered: AtomicBool::new(false),
        broken: AtomicBool::new(false),
        last_down: AtomicBool::new(false),
        answer: AtomicU64::new(0),
        began: Instant::now(),
        touched: AtomicU64::new(0),
    };
    let (client_reader, client_writer) = client.split();
    let result = {
        let up = up(client_reader, writer, half_close, &progress, stats);
        let down = down(reader, client_writer, &progress, stats);
        tokio::pin!(up, down);
        tokio::select! {
            result = &mut up => match result {
                Ok(Up::Ended) => down.await,
                Ok(Up::Over) => Ok(()),
                Err(error @ Side::Pod(_)) => {
                    progress.broken.store(true, Relaxed);
                    Err(first_cause(error, down).await)
                }
                Err(error) => Err(error),
            },
            result = &mut down => match result {
                // The pod said all it had to say; what the client still sends may find no reader.
                Ok(()) => { let _ = tokio::time::timeout(LINGER, up).await; Ok(()) }
                Err(error) => Err(error),
            },
            () = idle_after(closing, &progress) => Ok(()),
        }
    };
    match result {
        Ok(()) => End::Clean,
        Err(side) => progress.judge(side),
    }
}

/// Waits until the forward closes and the connection lies idle: the pod has answered, and nothing moves any more. A
/// browser keeps such a connection for its next request and opens another one without a word.
async fn idle_after(closing: &CancellationToken, progress: &Progress<'_>) {
    closing.cancelled().await;
    loop {
        let answered = progress.answered.load(Relaxed) && progress.last_down.load(Relaxed);
        let quiet_since = progress.began + Duration::from_millis(progress.touched.load(Relaxed));
        if answered && Instant::now() >= quiet_since + IDLE {
            return;
        }
        tokio::time::sleep_until((quiet_since + IDLE).max(Instant::now() + IDLE / 4)).await;
    }
}

/// A write that failed because the pod closed is less telling than what the pod said before: an answer that still lies
/// in our socket (413 and close), or a tunnel's word that the port refused. It stays a failure in any case: after a
/// reset the kernel shows the reader a clean end.
async fn first_cause(error: Side, down: impl Future<Output = Result<(), Side>>) -> Side {
    match tokio::time::timeout(LINGER, down).await {
        Ok(Err(cause)) => cause,
        Ok(Ok(())) | Err(_) => error,
    }
}

impl Progress<'_> {
    fn touch(&self, down: bool) {
        self.last_down.store(down, Relaxed);
        self.touched.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn judge(&self, side: Side) -> End {
        let error = match side {
            Side::Client => return End::ClientLeft,
            Side::Pod(error) => error,
            Side::Empty => std::io::Error::new(std::io::ErrorKind::ConnectionReset, "closed without an answer"),
        };
        let replay = lock(&self.replay);
        let why = error.to_string();
        if self.answered.load(Relaxed) || replay.forgotten {
            End::Broken(why)
        } else if self.delivered.load(Relaxed) == 0 || error.kind() == std::io::ErrorKind::ConnectionRefused {
            End::NotDelivered(why)
        } else if replay.is_safe_request() {
            End::Unanswered(why)
        } else {
            End::Broken(why)
        }
    }
}

async fn up<C, W>(
    mut client: C,
    mut pod: W,
    half_close: bool,
    progress: &Progress<'_>,
    stats: &Stats,
) -> Result<Up, Side>
where
    C: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (before, mut ended) = {
        let replay = lock(&progress.replay);
        (replay.bytes.clone(), replay.ended)
    };
    if !before.is_empty() {
        send(&mut pod, &before, progress, stats).await?;
    }
    let mut buffer = vec![0; BUFFER];
    while !ended {
        let count = client.read(&mut buffer).await.map_err(|_| Side::Client)?;
        if count == 0 {
            lock(&progress.replay).ended = true;
            ended = true;
        } else {
            lock(&progress.replay).record(&buffer[..count]);
            send(&mut pod, &buffer[..count], progress, stats).await?;
        }
    }
    if half_close {
        pod.shutdown().await.map_err(Side::Pod)?;
        return Ok(Up::Ended);
    }
    loop {
        let limit = match progress.last_down.load(Relaxed) {
            true if progress.answer.load(Relaxed) < SMALL => SHORT_QUIET,
            true => QUIET,
            false => LINGER,
        };
        let until = progress.began + Duration::from_millis(progress.touched.load(Relaxed)) + limit;
        if Instant::now() >= until {
            pod.shutdown().await.map_err(Side::Pod)?;
            return Ok(Up::Over);
        }
        tokio::time::sleep_until(until).await;
    }
}

async fn send<W: AsyncWrite + Unpin>(
    pod: &mut W,
    bytes: &[u8],
    progress: &Progress<'_>,
    stats: &Stats,
) -> Result<(), Side> {
    progress.touch(false);
    progress.answer.store(0, Relaxed);
    pod.write_all(bytes).await.map_err(Side::Pod)?;
    pod.flush().await.map_err(Side::Pod)?;
    progress.delivered.fetch_add(bytes.len() as u64, Relaxed);
    stats.sent.fetch_add(bytes.len() as u64, Relaxed);
    Ok(())
}

async fn down<R, C>(mut pod: R, mut client: C, progress: &Progress<'_>, stats: &Stats) -> Result<(), Side>
where
    R: AsyncRead + Unpin,
    C: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = pod.read(&mut buffer).await.map_err(Side::Pod)?;
        if count == 0 {
            if progress.broken.load(Relaxed) {
                return Err(Side::Pod(std::io::ErrorKind::ConnectionReset.into()));
            }
            if !progress.answered.load(Relaxed) && lock(&progress.replay).is_safe_request() {
                return Err(Side::Empty);
            }
            // The client may be gone already; its own end is no failure of ours.
            return client.shutdown().await.map_err(|_| Side::Client);
        }
        if !progress.answered.swap(true, Relaxed) {
            lock(&progress.replay).forget();
        }
        progress.touch(true);
        progress.answer.fetch_add(count as u64, Relaxed);
        client.write_all(&buffer[..count]).await.map_err(|_| Side::Client)?;
        stats.received.fetch_add(count as u64, Relaxed);
    }
}
