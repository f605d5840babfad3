//! The pool and its links against a far end whose frames are written out by hand.

#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::stream::Stream;
use super::super::wire::Wire;
use super::*;

const POD: &str = "uid-1";

/// A pool that can open no tunnel by itself, and the far ends of those it was given.
struct Bench {
    pool: Arc<Pool>,
    key: Arc<str>,
    listener: TcpListener,
    _feed: watch::Sender<Client>,
}

impl Bench {
    async fn new() -> Self {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(tower::BoxError::from("nobody is there"))
        });
        let (feed, client) = watch::channel(Client::new(nobody, "default"));
        let pool = Arc::new(Pool::new(client, "default".into(), 4, Arc::default()));
        let key: Arc<str> = POD.into();
        lock(&pool.pods).insert(key.clone(), Pod::default());
        Self { pool, key, listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), _feed: feed }
    }

    /// One more tunnel; returns its far end.
    async fn tunnel(&self) -> Far {
        let near = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let far = self.listener.accept().await.unwrap().0;
        self.pool.adopt(&self.key, Link::new(Wire::bare(near), false, Counted::new(&self.pool.alive)));
        Far(far)
    }

    async fn open(&self) -> Stream {
        let lease = self.pool.lease("pod", POD).await.unwrap().unwrap();
        Stream::leased(lease, 80)
    }

    /// One more connection whose first bytes have reached the far end; the numbers of its error and data stream.
    async fn begin(&self, far: &mut Far, first: &[u8]) -> (Stream, (u32, u32)) {
        let mut stream = self.open().await;
        stream.write_all(first).await.unwrap();
        let ids = far.opened().await;
        far.frame().await;
        (stream, ids)
    }

    async fn wait(&self, what: &str, mut is_so: impl FnMut(&Pool) -> bool) {
        let waited = timeout(Duration::from_secs(10), async {
            while !is_so(&self.pool) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(waited.await.is_ok(), "not within 10 s: {what}");
    }
}

struct Far(TcpStream);

impl Far {
    /// The next frame: its first four bytes as a number, flags, body.
    async fn frame(&mut self) -> (u32, u8, Vec<u8>) {
        let head = self.0.read_u64().await.unwrap();
        let mut body = vec![0; usize::try_from(head & 0x00ff_ffff).unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        ((head >> 32) as u32, (head >> 24) as u8, body)
    }

    /// Reads what opens a connection; returns the numbers of the error and the data stream.
    async fn opened(&mut self) -> (u32, u32) {
        let number = |body: &[u8]| u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
        let (error, data) = (self.frame().await, self.frame().await);
        assert_eq!((error.0, data.0), (0x8003_0001, 0x8003_0001));
        let (error, data) = (number(&error.2), number(&data.2));
        assert_eq!(self.frame().await, (error, 1, vec![]), "our half of the error stream ends at once");
        (error, data)
    }

    async fn say(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        self.0.write_all(&super::super::spdy::data_head(stream, bytes.len(), fin)).await.unwrap();
        self.0.write_all(bytes).await.unwrap();
    }

    async fn pong(&mut self) -> u32 {
        let (kind, _, body) = self.frame().await;
        assert_eq!(kind, 0x8003_0006, "a PING is due");
        self.0.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4]).await.unwrap();
        self.0.write_all(&body).await.unwrap();
        u32::from_be_bytes([body[0], body[1], body[2], body[3]])
    }

    async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        timeout(Duration::from_secs(10), self.0.read_to_end(&mut rest)).await.is_ok()
    }
}

/// Our end first, then theirs.
async fn clean_end(stream: &mut Stream, far: &mut Far, (error, data): (u32, u32)) {
    stream.shutdown().await.unwrap();
    assert_eq!(far.frame().await, (data, 1, vec![]));
    far.say(data, b"", true).await;
    far.say(error, b"", true).await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_clean_end_makes_the_tunnel_free_at_once_and_numbers_go_on() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    for turn in 0..3 {
        let mut stream = bench.open().await;
        assert_eq!(bench.pool.idle(), 0);
        stream.write_all(b"ping").await.unwrap();
        let ids = far.opened().await;
        assert_eq!(ids, (turn * 4 + 1, turn * 4 + 3));
        assert_eq!(far.frame().await, (ids.1, 0, b"ping".to_vec()));
        far.say(ids.1, b"pong", false).await;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
        clean_end(&mut stream, &mut far, ids).await;
        drop(stream);
        assert_eq!(bench.pool.idle(), 1);
    }
    assert_eq!(bench.pool.stats.fenced.load(Relaxed), 0);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let mut stream = bench.open().await;
    let (greeted, ()) = tokio::join!(
        async {
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await.unwrap();
            greeting
        },
        async {
            let (_, data) = far.opened().await;
            far.say(data, b"hello", false).await;
        }
    );
    assert_eq!(&greeted, b"hello");
}

#[tokio::test]
async fn after_a_refused_port_the_tunnel_is_used_again_only_when_five_pongs_came() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let (mut stream, (error, data)) = bench.begin(&mut far, b"request").await;
    far.say(error, b"dial tcp4 127.0.0.1:80: connect: connection refused", true).await;
    let told = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::ConnectionRefused);
    drop(stream);
    assert_eq!(far.frame().await, (data, 1, vec![]), "the server's half is ended");
    for id in [1, 3, 5, 7] {
        assert_eq!(far.pong().await, id);
    }
    assert_eq!(bench.pool.idle(), 0);
    far.pong().await;
    bench.wait("the tunnel is free", |pool| pool.idle() == 1).await;
}

#[tokio::test]
async fn a_tunnel_in_which_something_is_stuck_is_closed() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let (mut stream, (error, data)) = bench.begin(&mut far, b"request").await;
    far.say(data, b"", true).await;
    far.say(error, b"read: connection reset by peer", true).await;
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(stream);
    far.frame().await;
    for _ in 1..WORKERS {
        far.pong().await;
    }
    bench.wait("it is given up", |pool| pool.stats.stuck.load(Relaxed) == 1).await;
    assert_eq!((bench.pool.idle(), bench.pool.alive.load(Relaxed)), (0, 0));
}

#[tokio::test]
async fn an_end_without_the_error_streams_is_no_end() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let (mut stream, (_, data)) = bench.begin(&mut far, b"request").await;
    far.say(data, b"half an ans", true).await;
    drop(far);
    let mut answer = Vec::new();
    assert_eq!(stream.read_to_end(&mut answer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(answer, b"half an ans");
}

#[tokio::test]
async fn what_is_broken_off_takes_its_tunnel_with_it() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let mut stream = bench.open().await;
    stream.write_all(b"request").await.unwrap();
    far.opened().await;
    stream.abort();
    assert!(far.is_closed().await);
    assert_eq!(bench.pool.idle(), 0);
}

#[tokio::test]
async fn an_end_still_to_come_does_not_keep_the_next_connection_and_late_bytes_do_not_reach_it() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let (mut stream, (old_error, old)) = bench.begin(&mut far, b"request").await;
    far.say(old, b"answer", false).await;
    stream.read_exact(&mut [0; 6]).await.unwrap();
    stream.shutdown().await.unwrap();
    far.frame().await;
    drop(stream);
    assert_eq!(bench.pool.idle(), 1);

    let (mut next, (_, data)) = bench.begin(&mut far, b"another").await;
    far.say(old, b"late", true).await;
    far.say(data, b"right", false).await;
    far.say(old_error, b"", true).await;
    let mut answer = [0; 5];
    next.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"right");
}

#[tokio::test]
async fn at_the_limit_connections_share_a_tunnel_and_each_gets_its_own_bytes() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let mut streams = Vec::new();
    // The limit is four tunnels; three more that only count.
    let _others: Vec<_> = (0..3).map(|_| Counted::new(&bench.pool.alive)).collect();
    let mut ids = Vec::new();
    for number in 0..6u8 {
        let mut stream = bench.open().await;
        stream.write_all(&[number]).await.unwrap();
        ids.push(far.opened().await);
        far.frame().await;
        streams.push(tokio::spawn(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.map(|_| all)
        }));
    }
    assert_eq!(bench.pool.stats.shared.load(Relaxed), 5);
    for round in 0..3u8 {
        for (number, (_, data)) in ids.iter().enumerate() {
            far.say(*data, &[u8::try_from(number).unwrap(), round], false).await;
        }
    }
    for (error, data) in ids.iter().rev() {
        far.say(*data, b"", true).await;
        far.say(*error, b"", true).await;
    }
    for (number, stream) in (0..6u8).zip(streams) {
        let all = timeout(Duration::from_secs(10), stream).await.unwrap().unwrap().unwrap();
        assert_eq!(all, [number, 0, number, 1, number, 2]);
    }
}

#[tokio::test]
async fn a_gone_pods_tunnels_are_forgotten() {
    let bench = Bench::new().await;
    let (_idle, mut far) = (bench.tunnel().await, bench.tunnel().await);
    let mut stream = bench.open().await;
    stream.write_all(b"request").await.unwrap();
    let (error, _) = far.opened().await;
    far.say(error, b"failed to find sandbox \"x\" in store: not found", true).await;
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(stream);
    assert_eq!(bench.pool.idle(), 0);
    assert_eq!(bench.pool.alive.load(Relaxed), 0);
}

#[tokio::test]
async fn a_tunnel_closed_while_idle_is_not_handed_out() {
    let bench = Bench::new().await;
    let far = bench.tunnel().await;
    let mut second = bench.tunnel().await;
    assert_eq!(bench.pool.idle(), 2);
    drop(far);
    let mut stream = bench.open().await;
    stream.write_all(b"x").await.unwrap();
    second.opened().await;
    bench.pool.tidy(false);
    bench
        .wait("the closed one is gone", |pool| {
            pool.tidy(false);
            pool.idle() == 0
        })
        .await;
}

#[tokio::test]
async fn a_tunnel_lent_on_serves_the_next_connection_while_the_last_one_still_hears_its_own_end() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let (mut old, (old_error, old_data)) = bench.begin(&mut far, b"request").await;
    far.say(old_data, b"answer", false).await;
    old.read_exact(&mut [0; 6]).await.unwrap();
    crate::forward::flow::Side::release(&mut old);
    assert_eq!(bench.pool.idle(), 1);

    let (mut next, (error, data)) = bench.begin(&mut far, b"another").await;
    old.shutdown().await.unwrap();
    assert_eq!(far.frame().await, (old_data, 1, vec![]));
    far.say(old_data, b", the rest", true).await;
    far.say(data, b"right", false).await;
    far.say(old_error, b"", true).await;
    let mut answer = [0; 5];
    next.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"right");
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), old.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b", the rest");
    drop(old);
    assert_eq!(bench.pool.idle(), 0, "the end of the one that lent it on gives nothing back");
    clean_end(&mut next, &mut far, (error, data)).await;
    drop(next);
    assert_eq!(bench.pool.idle(), 1);
}

#[tokio::test]
async fn who_lent_the_tunnel_on_and_does_not_read_is_reset_alone() {
    let bench = Bench::new().await;
    let mut far = bench.tunnel().await;
    let (mut old, (_, old_data)) = bench.begin(&mut far, b"request").await;
    far.say(old_data, b"answer", false).await;
    old.read_exact(&mut [0; 6]).await.unwrap();
    crate::forward::flow::Side::release(&mut old);

    let (mut next, (_, data)) = bench.begin(&mut far, b"another").await;
    let flood = async {
        for _ in 0..20 {
            far.say(old_data, &[0; 32 * 1024], false).await;
        }
        far.say(data, b"right", false).await;
    };
    let mut answer = [0; 5];
    let (read, ()) = tokio::join!(timeout(Duration::from_secs(10), next.read_exact(&mut answer)), flood);
    read.unwrap().unwrap();
    assert_eq!(&answer, b"right");
    assert_eq!(old.read_to_end(&mut Vec::new()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
