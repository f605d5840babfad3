//! An API server in memory with one Service, as far as a forward asks it: get, list, watch.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

#[derive(Default)]
struct World {
    uid: String,
    node: Value,
    service: Option<Value>,
    slices: Vec<Value>,
    /// Every change so far: the resource, and the watch event. A resourceVersion is an index into it.
    changes: Vec<(&'static str, Value)>,
}

/// The server; its threads end with the test's process.
pub struct Api {
    address: SocketAddr,
    world: Arc<(Mutex<World>, Condvar)>,
}

const SERVICES: &str = "/api/v1/namespaces/bookinfo/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bookinfo/endpointslices";

impl Api {
    /// On loopback, with Service bookinfo/productpage and one ready pod at `pod`.
    pub fn start(pod: SocketAddr) -> Self {
        Self::start_at("127.0.0.1", pod)
    }

    /// The same on another address, which is that of the only node.
    pub fn start_at(ip: &str, pod: SocketAddr) -> Self {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "productpage", "namespace": "bookinfo", "uid": "s", "resourceVersion": "1"},
            "spec": {"type": "ClusterIP", "selector": {"app": "productpage"},
                     "ports": [{"name": "http", "port": 9080, "targetPort": "http", "protocol": "TCP"}]},
        });
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "cp1"},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
        });
        let (uid, slices) = ("first-cluster".to_owned(), vec![slice(&[pod])]);
        let world = World { uid, node, service: Some(service), slices, changes: vec![] };
        let world = Arc::new((Mutex::new(world), Condvar::new()));
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&world);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                // A client that leaves in the middle has had enough.
                std::thread::spawn(move || serve(&stream.unwrap(), &shared).unwrap_or_default());
            }
        });
        Self { address, world }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn change(&self, change: impl FnOnce(&mut World) -> (&'static str, &'static str, Value)) {
        let mut world = self.world.0.lock().unwrap();
        let (path, kind, mut object) = change(&mut world);
        object["metadata"]["resourceVersion"] = json!(world.changes.len() + 1);
        world.changes.push((path, json!({"type": kind, "object": object})));
        self.world.1.notify_all();
    }

    /// The Service's pods are these from now on.
    pub fn set_pods(&self, pods: &[SocketAddr]) {
        self.change(|world| {
            world.slices = vec![slice(pods)];
            (SLICES, "MODIFIED", slice(pods))
        });
    }

    pub fn delete_service(&self) {
        self.change(|world| (SERVICES, "DELETED", world.service.take().unwrap()));
    }

    /// The cluster was rebuilt behind the same address.
    pub fn become_another_cluster(&self) {
        self.world.0.lock().unwrap().uid = "second-cluster".to_owned();
    }
}

fn slice(pods: &[SocketAddr]) -> Value {
    let port = pods.first().map_or(1, SocketAddr::port);
    let endpoints: Vec<Value> = pods
        .iter()
        .enumerate()
        .map(|(number, pod)| {
            json!({"addresses": [pod.ip()], "conditions": {"ready": true},
                   "targetRef": {"kind": "Pod", "name": format!("pod-{number}"), "uid": pod.to_string()}})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "productpage-1", "namespace": "bookinfo", "resourceVersion": "1",
                     "labels": {"kubernetes.io/service-name": "productpage"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}

fn serve(stream: &TcpStream, world: &(Mutex<World>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if query.contains("watch=true") || query.contains("watch=1") {
            return watch(stream, path, query, world);
        }
        let (code, body) = answer(path, &world.0.lock().unwrap());
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        (&*stream).write_all((head + &body).as_bytes())?;
    }
}

fn answer(path: &str, world: &World) -> (u16, Value) {
    let list = |kind: &str, version: &str, items: Vec<Value>| {
        let metadata = json!({"resourceVersion": world.changes.len().to_string()});
        (200, json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}))
    };
    let namespace = |name: &str, uid: &str| json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "uid": uid}});
    match path {
        "/api/v1/namespaces/kube-system" => (200, namespace("kube-system", &world.uid)),
        "/api/v1/namespaces" => {
            list("NamespaceList", "v1", vec![namespace("kube-system", &world.uid), namespace("bookinfo", "b")])
        }
        SERVICES | "/api/v1/services" => list("ServiceList", "v1", world.service.iter().cloned().collect()),
        SLICES => list("EndpointSliceList", "discovery.k8s.io/v1", world.slices.clone()),
        _ if path == format!("{SERVICES}/productpage") && world.service.is_some() => {
            (200, world.service.clone().unwrap_or_default())
        }
        "/api/v1/nodes" => list("NodeList", "v1", vec![world.node.clone()]),
        _ if path.ends_with("/deployments") => list("DeploymentList", "apps/v1", vec![]),
        _ => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                "message": "not found", "reason": "NotFound", "code": 404});
            (404, status)
        }
    }
}

/// Sends the changes after the asked version, and waits for more.
fn watch(mut stream: &TcpStream, path: &str, query: &str, world: &(Mutex<World>, Condvar)) -> std::io::Result<()> {
    let version = query.split('&').find_map(|p| p.strip_prefix("resourceVersion="));
    let mut next: usize = version.and_then(|v| v.parse().ok()).unwrap_or(0);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut guard = world.0.lock().unwrap();
    loop {
        while let Some((of, event)) = guard.changes.get(next).cloned() {
            next += 1;
            if of == path {
                let line = format!("{event}\n");
                stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())?;
            }
        }
        guard = world.1.wait_timeout(guard, Duration::from_secs(1)).unwrap().0;
    }
}
