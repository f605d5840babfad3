//! An API server without a cluster: one Service, its pods, watches, and port-forwards in all three ways they are spoken,
//! with kubelet's and containerd's behaviour behind them, into real sockets.
//!
//! ```text
//! client -> http (TLS or plain) -> world (get, list, watch)
//!                               -> wire (raw | WebSocket) -> spdystream | channel -> runtime -> apps
//! ```
//! faults says what goes wrong meanwhile.

pub mod apps;
mod channel;
mod faults;
mod http;
mod rendezvous;
mod runtime;
mod spdy;
mod spdystream;
mod wire;
mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use base64::Engine;
use serde_json::json;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, version};

pub use faults::{Break, Counted, Faults, Refusal, Rung};
use faults::{Counters, lock};
use runtime::Sandbox;
use wire::{Duplex, Socket};
use world::{SERVICES, World};

/// What all connections share.
struct Server {
    world: Mutex<World>,
    /// Sent to with each change of the world.
    changed: watch::Sender<()>,
    faults: Arc<Faults>,
    counters: Counters,
    sockets: Mutex<Vec<Weak<Socket>>>,
    tls: Option<TlsAcceptor>,
}

/// One upgraded connection's view of its pod.
struct Upgraded {
    server: Arc<Server>,
    number: usize,
    uid: String,
}

impl std::ops::Deref for Upgraded {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Upgraded {
    fn sandbox(&self, port: u16) -> Sandbox {
        lock(&self.world).sandbox(self.number, &self.uid, port)
    }

    /// Sixty-four digits, as containerd's are.
    fn sandbox_id(&self) -> String {
        let sum =
            self.uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        format!("{sum:016x}").repeat(4)
    }
}

/// The server; it and its connections end with the value.
pub struct Api {
    address: SocketAddr,
    server: Arc<Server>,
    /// The certificate in PEM, where it speaks TLS.
    certificate: Option<String>,
    accepting: Mutex<Option<AbortHandle>>,
}

/// The threads behind all servers and applications of this process.
fn threads() -> &'static tokio::runtime::Runtime {
    static THREADS: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    THREADS.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("a process can start threads")
    })
}

impl Api {
    /// On loopback, with Service bookinfo/productpage and one ready pod at `pod`.
    ///
    /// # Panics
    /// As all of these where the machine has no free port.
    pub fn start(pod: SocketAddr) -> Self {
        Self::start_at(&Ipv4Addr::LOCALHOST.to_string(), pod)
    }

    /// The same on another address, which is that of the only node.
    ///
    /// # Panics
    /// Where `ip` is none.
    pub fn start_at(ip: &str, pod: SocketAddr) -> Self {
        let ip: IpAddr = ip.parse().expect("an address");
        Self::of(World::new(ip, &[("http", pod.port())], vec![pod.ip()]), None)
    }

    /// With TLS, and one pod on loopback whose ports are the Service's, by their names.
    pub fn with_ports(ports: &[(&str, u16)]) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let signed = rcgen::generate_simple_self_signed(vec![ip.to_string()]).expect("a certificate can be made");
        let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("ring knows both versions")
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .expect("the key is that of the certificate");
        let tls = (TlsAcceptor::from(Arc::new(config)), signed.cert.pem());
        Self::of(World::new(ip, ports, vec![ip]), Some(tls))
    }

    fn of(world: World, tls: Option<(TlsAcceptor, String)>) -> Self {
        let ip = world.node;
        let (tls, certificate) = tls.unzip();
        let server = Arc::new(Server {
            world: Mutex::new(world),
            changed: watch::channel(()).0,
            faults: Arc::default(),
            counters: Counters::default(),
            sockets: Mutex::default(),
            tls,
        });
        let mut api = Self { address: SocketAddr::new(ip, 0), server, certificate, accepting: Mutex::default() };
        api.address = api.listen();
        api
    }

    /// The address in a kubeconfig.
    pub fn url(&self) -> String {
        format!("http{}://{}", if self.certificate.is_some() { "s" } else { "" }, self.address)
    }

    /// A kubeconfig that leads here, with namespace bookinfo.
    pub fn kubeconfig(&self) -> String {
        let mut cluster = json!({"server": self.url()});
        if let Some(pem) = &self.certificate {
            cluster["certificate-authority-data"] = base64::engine::general_purpose::STANDARD.encode(pem).into();
        }
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "bookinfo"}}],
            // kubectl asks for a name and password where there is nothing.
            "users": [{"name": "test", "user": {"token": "any"}}],
        })
        .to_string()
    }

    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.server.faults
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        self.server.counters.read()
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut lock(&self.server.world));
        self.server.changed.send_replace(());
    }

    /// The Service's pods are these from now on.
    pub fn set_pods(&self, pods: &[SocketAddr]) {
        self.change(|world| world.set_pods(pods));
    }

    /// The same, and they run on this node.
    pub fn set_pods_on(&self, node: &str, pods: &[SocketAddr]) {
        self.change(|world| {
            world.runs_on = Some(node.to_owned());
            world.set_pods(pods);
        });
    }

    /// A field of the Service's spec is this from now on.
    pub fn set_spec(&self, field: &str, value: serde_json::Value) {
        self.change(|world| {
            if let Some(mut service) = world.service.clone() {
                service["spec"][field] = value;
                world.service = Some(service.clone());
                world.record(SERVICES, "MODIFIED", service);
            }
        });
    }

    /// The Service goes.
    pub fn delete_service(&self) {
        self.change(|world| {
            if let Some(service) = world.service.take() {
                world.record(SERVICES, "DELETED", service);
            }
        });
    }

    /// The cluster was rebuilt behind the same address.
    pub fn become_another_cluster(&self) {
        lock(&self.server.world).uid = "second-cluster".to_owned();
    }

    /// Breaks every connection that is open now, watches included.
    pub fn break_all(&self, how: Break) {
        for socket in lock(&self.server.sockets).drain(..).filter_map(|s| s.upgrade()) {
            socket.break_off(how);
        }
    }

    /// The process is killed: nobody listens, and every connection breaks.
    pub fn down(&self, how: Break) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
            // The port is closed once the task is gone.
            while !accepting.is_finished() {
                std::thread::yield_now();
            }
        }
        self.break_all(how);
    }

    /// The process is there again, at the same address and with the same objects.
    pub fn up(&self) {
        self.listen();
    }

    fn listen(&self) -> SocketAddr {
        let address = self.address;
        let _inside = threads().enter();
        // Sets SO_REUSEADDR: connections of the life before may still linger.
        let listener = std::net::TcpListener::bind(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let listener = TcpListener::from_std(listener).expect("a socket can be polled");
        let bound = listener.local_addr().expect("a listener has an address");
        let server = Arc::clone(&self.server);
        let task = threads().spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    // A client that leaves in the middle has had enough.
                    tokio::spawn(connection(stream, Arc::clone(&server)));
                }
            }
        });
        *lock(&self.accepting) = Some(task.abort_handle());
        bound
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.down(Break::Fin);
    }
}

async fn connection(stream: tokio::net::TcpStream, server: Arc<Server>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (socket, stream) = Socket::of(stream)?;
    {
        let mut sockets = lock(&server.sockets);
        sockets.retain(|s| s.strong_count() > 0);
        sockets.push(Arc::downgrade(&socket));
    }
    let stream: Box<dyn Duplex> = match &server.tls {
        Some(tls) => Box::new(tls.accept(stream).await?),
        None => Box::new(stream),
    };
    http::serve(BufReader::with_capacity(64 * 1024, stream), socket, server).await
}
