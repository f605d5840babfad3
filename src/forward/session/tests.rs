//! Sessions over real sockets of this machine: what a client sees when pods come, go, refuse and break off.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::forward::carrier::Carriers;
use crate::forward::endpoints::Endpoint;
use crate::forward::listener::bind;
use crate::forward::spec::{Kind, Mode, Pair, Spec};
use crate::forward::worker::Workers;
use crate::model::PortRef;

mod affinity;
mod terms;

const LIMIT: Duration = Duration::from_secs(20);

/// A forward without a cluster: the test says which pods there are.
struct Bench {
    address: SocketAddr,
    shared: Arc<Shared>,
    endpoints: watch::Sender<Endpoints>,
    routes: watch::Sender<Routes>,
    workers: Option<Workers>,
}

impl Bench {
    async fn new(pods: Vec<Endpoint>) -> Self {
        Self::with(pods, |_| {}).await
    }

    async fn with(pods: Vec<Endpoint>, change: impl FnOnce(&mut Spec)) -> Self {
        let (routes, routes_feed) = watch::channel(routes(&pods, false));
        let (endpoints, feed) = watch::channel(Endpoints::new(vec![pods]));
        let mut spec = Spec {
            pairs: vec![Pair { listen: 0, port: PortRef::Number(80) }],
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            mode: Mode::Direct,
            ..Spec::new(Kind::Service, "ns", "svc")
        };
        change(&mut spec);
        let shared = Arc::new(Shared::new(feed, routes_feed, vec![Way::Direct], Terms::of(&spec)));
        let listeners = bind(&spec, 2).unwrap();
        let address = listeners.bound[0][0];
        let carriers = vec![Carriers::default(), Carriers::default()];
        let workers = Workers::start(&shared, carriers, listeners).unwrap();
        workers.serve();
        Self { address, shared, endpoints, routes, workers: Some(workers) }
    }

    fn pods(&self, pods: Vec<Endpoint>) {
        let by_client = self.routes.borrow().by_client;
        self.routes.send_replace(routes(&pods, by_client));
        self.endpoints.send_replace(Endpoints::new(vec![pods]));
    }

    /// sessionAffinity ClientIP.
    fn stay(self) -> Self {
        self.routes.send_modify(|routes| routes.by_client = true);
        self
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until a counter has a value.
    async fn until(&self, reached: impl Fn(&Stats) -> bool) {
        let poll = async {
            while !reached(&self.shared.stats) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, poll).await.unwrap();
    }
}

/// A pod: what `serve` does with each connection, in order.
async fn pod<F, Fut>(name: &str, serve: F) -> Endpoint
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    pod_at(name, (Ipv4Addr::LOCALHOST, 0).into(), serve).await
}

async fn pod_at<F, Fut>(name: &str, at: SocketAddr, serve: F) -> Endpoint
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    endpoint(name, address)
}

fn endpoint(name: &str, address: SocketAddr) -> Endpoint {
    Endpoint { ip: address.ip(), port: address.port(), pod: Some(name.to_owned()), uid: Some(name.to_owned()) }
}

fn routes(pods: &[Endpoint], by_client: bool) -> Routes {
    let backends: std::collections::BTreeSet<_> = pods.iter().map(Endpoint::backend).collect();
    Routes { pairs: vec![backends.into_iter().collect()], by_client, ..Routes::default() }
}

/// An endpoint whose port nobody listens on.
async fn refusing(name: &str) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    endpoint(name, listener.local_addr().unwrap())
}

async fn answer(mut stream: TcpStream, text: &'static str) {
    let mut buffer = [0; 1024];
    if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

/// Everything until the end of the stream, or the error it ended with.
async fn rest(client: &mut TcpStream) -> Result<String, ErrorKind> {
    let mut bytes = Vec::new();
    match timeout(LIMIT, client.read_to_end(&mut bytes)).await.unwrap() {
        Ok(_) => Ok(String::from_utf8(bytes).unwrap()),
        Err(error) => Err(error.kind()),
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn the_clients_half_close_reaches_the_pod_and_the_answer_comes_back() {
    let echo = pod("echo", |mut stream: TcpStream| async move {
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        stream.write_all(format!("got {all}").as_bytes()).await.unwrap();
    })
    .await;
    let bench = Bench::new(vec![echo]).await;
    let mut client = bench.dial().await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, Ok("got hello".to_owned()));
    bench.until(|s| s.live.load(Relaxed) == 0).await;
    assert_eq!(bench.shared.stats.failed.load(Relaxed), 0);
}

#[tokio::test]
async fn the_pods_half_close_reaches_the_client_while_it_goes_on_sending() {
    let (told, heard) = tokio::sync::oneshot::channel();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let pod = pod("early", move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            stream.shutdown().await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            let _ = told.lock().unwrap().take().unwrap().send(all);
        }
    })
    .await;
    let bench = Bench::new(vec![pod]).await;
    let mut client = bench.dial().await;
    let mut buffer = [0; 1];
    assert_eq!(timeout(LIMIT, client.read(&mut buffer)).await.unwrap().unwrap(), 0);
    client.write_all(b"late words").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(timeout(LIMIT, heard).await.unwrap().unwrap(), "late words");
}

#[tokio::test]
async fn a_truncated_answer_ends_in_a_reset_never_in_a_clean_end() {
    let breaking = pod("breaking", |mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        stream.write_all(b"half an ans").await.unwrap();
        // The client has it before the reset, which would throw it away.
        let _ = stream.read(&mut buffer).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let bench = Bench::new(vec![breaking]).await;
    let mut client = bench.dial().await;
    client.write_all(GET).await.unwrap();
    let mut head = [0; 11];
    timeout(LIMIT, client.read_exact(&mut head)).await.unwrap().unwrap();
    client.write_all(b"more").await.unwrap();
    assert_eq!(rest(&mut client).await, Err(ErrorKind::ConnectionReset));
    bench.until(|s| s.failed.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn a_refusing_pod_costs_nothing_while_another_answers() {
    let good = pod("good", |stream| answer(stream, "good")).await;
    let bench = Bench::new(vec![refusing("bad").await, good]).await;
    for _ in 0..20 {
        let mut client = bench.dial().await;
        client.write_all(POST).await.unwrap();
        assert_eq!(rest(&mut client).await, Ok("good".to_owned()));
    }
    assert_eq!(bench.shared.stats.failed.load(Relaxed), 0);
    // Shunned after its first refusal, not asked again by each connection.
    assert!(bench.shared.stats.retried.load(Relaxed) < 20);
}

#[tokio::test]
async fn a_get_that_got_no_answer_is_repeated_and_a_post_is_not() {
    let breaking = pod("breaking", |mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let bench = Bench::new(vec![breaking.clone()]).await;
    let mut post = bench.dial().await;
    post.write_all(POST).await.unwrap();
    assert_eq!(rest(&mut post).await, Err(ErrorKind::ConnectionReset));
    let good = pod("good", |stream| answer(stream, "good")).await;
    bench.pods(vec![breaking, good]);
    for _ in 0..20 {
        let mut get = bench.dial().await;
        get.write_all(GET).await.unwrap();
        assert_eq!(rest(&mut get).await, Ok("good".to_owned()));
    }
}

#[tokio::test]
async fn a_get_is_repeated_too_where_the_pod_closes_without_a_word() {
    let closing = pod("closing", |mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    let good = pod("good", |stream| answer(stream, "good")).await;
    let bench = Bench::new(vec![closing, good]).await;
    for _ in 0..20 {
        let mut get = bench.dial().await;
        get.write_all(GET).await.unwrap();
        assert_eq!(rest(&mut get).await, Ok("good".to_owned()));
    }
}

#[tokio::test]
async fn without_a_pod_connections_wait_and_go_on_when_one_is_ready() {
    let bench = Bench::new(vec![]).await;
    let mut client = bench.dial().await;
    client.write_all(GET).await.unwrap();
    bench.until(|s| s.parked.load(Relaxed) == 1).await;
    let good = pod("good", |stream| answer(stream, "good")).await;
    bench.pods(vec![good]);
    assert_eq!(rest(&mut client).await, Ok("good".to_owned()));
    bench.until(|s| s.parked.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn waiting_ends_in_a_reset_after_the_deadline() {
    let bench = Bench::with(vec![], |s| s.limits.patience_seconds = 1).await;
    let mut client = bench.dial().await;
    assert_eq!(rest(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(bench.shared.stats.last_failure().unwrap().1, "no pod is ready");
}

#[tokio::test]
async fn when_all_places_are_taken_the_next_one_is_turned_away() {
    let bench = Bench::with(vec![], |s| s.limits.parked = 1).await;
    let _first = bench.dial().await;
    bench.until(|s| s.parked.load(Relaxed) == 1).await;
    // The reset may be faster than the client.
    let end = match TcpStream::connect(bench.address).await {
        Ok(mut second) => rest(&mut second).await,
        Err(error) => Err(error.kind()),
    };
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert_eq!(bench.shared.stats.parked.load(Relaxed), 1);
}

#[tokio::test]
async fn a_pod_that_refuses_at_first_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = Bench::new(vec![endpoint("starting", address)]).await;
    let mut client = bench.dial().await;
    client.write_all(GET).await.unwrap();
    bench.until(|s| s.retried.load(Relaxed) >= 2).await;
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, "at last").await;
        }
    });
    assert_eq!(rest(&mut client).await, Ok("at last".to_owned()));
}

#[tokio::test]
async fn many_megabytes_come_through_whole_in_both_directions() {
    const SIZE: usize = 8 * 1024 * 1024;
    let sink = pod("sink", |mut stream: TcpStream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
    })
    .await;
    let bench = Bench::new(vec![sink]).await;
    let sent: Vec<u8> = (0..SIZE).map(|i| (i * 31 % 251) as u8).collect();
    let (mut reader, mut writer) = bench.dial().await.into_split();
    let mut got = Vec::new();
    let (wrote, read) = timeout(LIMIT, async {
        tokio::join!(
            async {
                writer.write_all(&sent).await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut got)
        )
    })
    .await
    .unwrap();
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent);
    assert_eq!(bench.shared.stats.sent.load(Relaxed), SIZE as u64);
    assert_eq!(bench.shared.stats.received.load(Relaxed), SIZE as u64);
}

#[tokio::test]
async fn a_client_that_breaks_off_is_no_failure_and_the_pod_notices() {
    let (told, heard) = tokio::sync::oneshot::channel();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let pod = pod("waiting", move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let end = stream.read(&mut buffer).await.map_err(|e| e.kind());
            let _ = told.lock().unwrap().take().unwrap().send(end);
        }
    })
    .await;
    let bench = Bench::new(vec![pod]).await;
    let mut client = bench.dial().await;
    client.write_all(GET).await.unwrap();
    bench.until(|s| s.sent.load(Relaxed) > 0).await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(timeout(LIMIT, heard).await.unwrap().unwrap(), Err(ErrorKind::ConnectionReset));
    bench.until(|s| s.live.load(Relaxed) == 0).await;
    assert_eq!(bench.shared.stats.failed.load(Relaxed), 0);
}

#[tokio::test]
async fn at_the_end_open_connections_are_reset_and_none_is_left() {
    let silent = pod("silent", |stream: TcpStream| async move {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let mut bench = Bench::new(vec![silent]).await;
    let mut client = bench.dial().await;
    client.write_all(GET).await.unwrap();
    bench.until(|s| s.sent.load(Relaxed) > 0).await;
    bench.shared.closing.cancel();
    timeout(LIMIT, bench.workers.take().unwrap().drain(std::future::ready(()))).await.unwrap();
    assert_eq!(rest(&mut client).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn when_it_closes_an_idle_connection_ends_cleanly_and_a_busy_one_gets_its_answer() {
    let (release, held) = watch::channel(false);
    let pod = pod("keep-alive", move |mut stream: TcpStream| {
        let mut held = held.clone();
        async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"first").await;
            // The second request is answered when the test says so, and the connection is kept.
            if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                let _ = held.wait_for(|go| *go).await;
                let _ = stream.write_all(b"second").await;
                let _ = stream.read(&mut buffer).await;
            }
        }
    })
    .await;
    let mut bench = Bench::new(vec![pod]).await;
    let (mut idle, mut busy) = (bench.dial().await, bench.dial().await);
    let mut first = [0; 5];
    for client in [&mut idle, &mut busy] {
        client.write_all(GET).await.unwrap();
        client.read_exact(&mut first).await.unwrap();
    }
    let sent = bench.shared.stats.sent.load(Relaxed);
    busy.write_all(GET).await.unwrap();
    bench.until(|s| s.sent.load(Relaxed) > sent).await;
    bench.shared.closing.cancel();
    assert_eq!(rest(&mut idle).await, Ok(String::new()));
    release.send_replace(true);
    assert_eq!(rest(&mut busy).await, Ok("second".to_owned()));
    timeout(LIMIT, bench.workers.take().unwrap().drain(std::future::pending())).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_names_its_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spec = Spec {
        pairs: vec![Pair { listen: taken.local_addr().unwrap().port(), port: PortRef::Number(80) }],
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        mode: Mode::Direct,
        ..Spec::new(Kind::Service, "ns", "svc")
    };
    let error = bind(&spec, 2).err().unwrap().to_string();
    assert!(error.contains("is in use"), "{error}");
    #[cfg(target_os = "linux")]
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
}
