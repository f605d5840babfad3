//! Feeds the index from the API server, and notices when the target or its cluster is gone.
//!
//! Losing the API server changes nothing for open and new connections: the last known endpoints stay. The kubeconfig is
//! read anew then, so that renewed credentials and a moved API server are taken up.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;

use super::endpoints::{Endpoint, Index, Member, Policy, Routes, is_tcp, of_pod, of_slice, other_protocol, slice_port};
use super::spec::{Kind, Mode, Spec};
use crate::model::{ObjectRef, PortRef};
use crate::observe::client::{self, Cluster, connect, innermost};

/// The usable endpoints, pair by pair.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Endpoints(Vec<Arc<[Endpoint]>>);

impl Endpoints {
    /// From sets in the order of the Spec's pairs.
    pub fn new(pairs: Vec<Vec<Endpoint>>) -> Self {
        Self(pairs.into_iter().map(Into::into).collect())
    }

    /// Those of one pair.
    pub fn pair(&self, index: usize) -> Arc<[Endpoint]> {
        self.0.get(index).cloned().unwrap_or_default()
    }

    /// Of all pairs.
    pub fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter().flat_map(|set| set.iter())
    }
}

/// Why a forward cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connect(#[from] client::Error),
    #[error("{object} does not exist in namespace {}", object.namespace())]
    NotFound { object: ObjectRef },
    #[error("{object} has no port {port}; it has {}", known.join(", "))]
    NoPort { object: ObjectRef, port: PortRef, known: Vec<String> },
    #[error("no right to {verb} {resource} in namespace {namespace}")]
    Forbidden { verb: &'static str, resource: &'static str, namespace: String },
    #[error("port {port} of {object} is {protocol}; only TCP can be forwarded")]
    NotTcp { object: ObjectRef, port: PortRef, protocol: String },
    #[error("{object} is another name for {host} and has no pods")]
    ExternalName { object: ObjectRef, host: String },
    #[error("{object} selects no pods, and a tunnel leads to pods only")]
    NoSelector { object: ObjectRef },
    #[error("the kubeconfig leads to another cluster than the forward was made for")]
    OtherCluster,
    #[error("{0}")]
    Api(String),
}

/// Why a forward is over although nobody stopped it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", tag = "over")]
pub enum Over {
    /// The object it leads to was deleted.
    Deleted { object: ObjectRef },
    /// Another cluster answers where this one was, or shows another certificate authority.
    ClusterGone { message: String },
}

/// The API server does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub since: Timestamp,
    pub message: String,
}

/// How often the cluster's identity is asked. A silent API server is noticed as late.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(5);
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The receiving ends.
#[derive(Clone)]
pub struct Feeds {
    pub endpoints: watch::Receiver<Endpoints>,
    /// The same for the kernel carrier.
    pub routes: watch::Receiver<Routes>,
    /// The addresses of the node this is, as the cluster knows them; none elsewhere.
    pub node_addresses: Vec<IpAddr>,
    /// For tunnels; changes when the kubeconfig is read anew.
    pub client: watch::Receiver<Client>,
    /// None while the API server answers.
    pub loss: watch::Receiver<Option<Loss>>,
}

/// The pump.
pub struct Watch {
    spec: Spec,
    client: Client,
    /// What `index` calls the port of each pair; none while the Service has no such port.
    ports: Vec<Option<PortRef>>,
    /// What the Service says about sessions and sources.
    policy: Policy,
    index: Index,
    pods: Option<String>,
    /// The name of this node; none where this machine is none.
    node: Option<String>,
    to_endpoints: watch::Sender<Endpoints>,
    to_routes: watch::Sender<Routes>,
    to_client: watch::Sender<Client>,
    to_loss: watch::Sender<Option<Loss>>,
}

enum Seen {
    /// The target; a Service is read for its ports.
    Target(Option<Box<Service>>),
    Gone,
    /// An object that lists endpoints is new or changed, or gone.
    Member(String, Option<Vec<Member>>),
    All(Vec<(String, Vec<Member>)>),
    /// uid of kube-system; "" where it may not be read.
    Identity(String),
    Nothing,
}

type Events = BoxStream<'static, Result<Seen, String>>;

/// Reads the target and its endpoints once. `spec.cluster` is filled in where it was unknown.
///
/// # Errors
/// See [`Error`].
pub async fn open(spec: &mut Spec) -> Result<(Watch, Feeds), Error> {
    let cluster = connect(&spec.connection).await?;
    if spec.cluster.is_empty() {
        spec.cluster.clone_from(&cluster.uid);
    } else if !cluster.uid.is_empty() && cluster.uid != spec.cluster {
        return Err(Error::OtherCluster);
    }
    let (client, tunnels) = clients(&cluster)?;
    let (to_endpoints, endpoints) = watch::channel(Endpoints::default());
    let (to_routes, routes) = watch::channel(Routes::default());
    let (to_client, client_feed) = watch::channel(tunnels);
    let (to_loss, loss) = watch::channel(None);
    let (node, node_addresses) = own_node(&cluster.client).await;
    let mut watch = Watch {
        spec: spec.clone(),
        client,
        ports: Vec::new(),
        policy: Policy::default(),
        index: Index::default(),
        pods: None,
        node,
        to_endpoints,
        to_routes,
        to_client,
        to_loss,
    };
    watch.first_look().await?;
    watch.publish();
    Ok((watch, Feeds { endpoints, routes, node_addresses, client: client_feed, loss }))
}

/// One for the watches, and one for tunnels.
fn clients(cluster: &Cluster) -> Result<(Client, Client), Error> {
    let told = |error: kube::Error| Error::Api(innermost(&error));
    let watches = Client::try_from(cluster.config.clone()).map_err(told)?;
    Ok((watches, client::tunnel_client(&cluster.config).map_err(told)?))
}

impl Watch {
    fn api<K: kube::Resource<Scope = kube::core::NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.spec.namespace)
    }

    async fn first_look(&mut self) -> Result<(), Error> {
        let object = self.spec.object();
        let name = self.spec.name.clone();
        let missing = |error, verb, resource| denied(error, verb, resource, &object);
        match self.spec.kind {
            Kind::Service => {
                let service = self.api::<Service>().get(&name).await.map_err(|e| missing(e, "get", "services"))?;
                if let Some(host) = service.spec.as_ref().and_then(|s| s.external_name.clone()) {
                    return Err(Error::ExternalName { object, host });
                }
                let selects = service.spec.as_ref().is_some_and(|s| s.selector.iter().any(|s| !s.is_empty()));
                if self.spec.mode == Mode::Tunnel && !selects {
                    return Err(Error::NoSelector { object });
                }
                self.resolve(&service);
                if let Some(at) = self.ports.iter().position(Option::is_none) {
                    let port = self.spec.pairs[at].port.clone();
                    if let Some(protocol) = other_protocol(&service, &port) {
                        return Err(Error::NotTcp { object, port, protocol });
                    }
                    return Err(Error::NoPort { object, port, known: known_ports(&service) });
                }
                let slices = kube::api::ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
                let list = self.api::<EndpointSlice>().list(&slices).await;
                let list = list.map_err(|e| missing(e, "list", "endpointslices"))?;
                self.index.reset(list.iter().map(|s| (s.name_any(), of_slice(s))));
            }
            Kind::Deployment => {
                let found = self.api::<Deployment>().get(&name).await;
                let found = found.map_err(|e| missing(e, "get", "deployments"))?;
                let selector = found.spec.map(|s| s.selector).unwrap_or_default();
                let selector = kube::core::Selector::try_from(selector).map_err(|e| Error::Api(e.to_string()))?;
                self.pods = Some(selector.to_string());
                self.first_pods(kube::api::ListParams::default().labels_from(&selector)).await?;
            }
            Kind::Pod => {
                self.api::<Pod>().get(&name).await.map_err(|e| missing(e, "get", "pods"))?;
                self.first_pods(kube::api::ListParams::default().fields(&format!("metadata.name={name}"))).await?;
            }
        }
        Ok(())
    }

    async fn first_pods(&mut self, which: kube::api::ListParams) -> Result<(), Error> {
        let object = self.spec.object();
        let list = self.api::<Pod>().list(&which).await.map_err(|e| denied(e, "list", "pods", &object))?;
        self.index.reset(list.iter().map(|p| (p.name_any(), of_pod(p))));
        self.ports = self.spec.pairs.iter().map(|p| Some(p.port.clone())).collect();
        let declared: Vec<String> = list.iter().flat_map(of_pod).flat_map(|m| m.ports).map(|(name, _)| name).collect();
        for pair in &self.spec.pairs {
            if let PortRef::Name(name) = &pair.port
                && !list.items.is_empty()
                && !declared.contains(name)
            {
                return Err(Error::NoPort { object, port: pair.port.clone(), known: declared });
            }
        }
        Ok(())
    }

    fn resolve(&mut self, service: &Service) {
        self.ports = self.spec.pairs.iter().map(|p| slice_port(service, &p.port)).collect();
        self.policy = Policy::of(service);
    }

    fn publish(&self) {
        let usable = |port: &Option<PortRef>| port.as_ref().map(|p| self.index.usable(p)).unwrap_or_default();
        let new = Endpoints::new(self.ports.iter().map(usable).collect());
        self.to_endpoints.send_if_modified(|old| {
            let changed = *old != new;
            if changed {
                let pods: Vec<_> = new.all().map(|e| e.pod.clone().unwrap_or_else(|| e.ip.to_string())).collect();
                tracing::info!(event = "endpoints", usable = pods.len(), pods = pods.join(","));
                *old = new;
            }
            changed
        });
        let routes = self.index.routes(&self.ports, self.policy, self.node.as_deref());
        self.to_routes.send_if_modified(|old| {
            let changed = *old != routes;
            *old = routes;
            changed
        });
    }

    /// Follows the cluster until the target or the cluster is gone.
    pub async fn run(mut self) -> Over {
        let mut pause = FIRST_PAUSE;
        loop {
            let message = match self.follow(&mut pause).await {
                Ok(over) => return over,
                Err(message) => message,
            };
            self.lost(&message);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match connect(&self.spec.connection).await {
                Ok(cluster) => {
                    if let Some(over) = self.compare(&cluster.uid) {
                        return over;
                    }
                    if let Ok((client, tunnels)) = clients(&cluster) {
                        self.client = client;
                        self.to_client.send_replace(tunnels);
                    }
                }
                Err(client::Error::Unreachable { message, .. }) if is_other_authority(&message) => {
                    return Over::ClusterGone { message };
                }
                Err(error) => self.lost(&error.to_string()),
            }
        }
    }

    fn compare(&self, uid: &str) -> Option<Over> {
        let other = !uid.is_empty() && !self.spec.cluster.is_empty() && uid != self.spec.cluster;
        other.then(|| Over::ClusterGone { message: format!("another cluster answers: kube-system has uid {uid}") })
    }

    fn lost(&self, message: &str) {
        self.to_loss.send_if_modified(|loss| {
            let first = loss.is_none();
            if first {
                tracing::warn!(event = "api-lost", error = message);
            }
            let since = loss.as_ref().map_or_else(Timestamp::now, |l| l.since);
            *loss = Some(Loss { since, message: message.to_owned() });
            first
        });
    }

    fn found(&self) {
        self.to_loss.send_if_modified(|loss| {
            let was = loss.take().is_some();
            if was {
                tracing::info!(event = "api-back");
            }
            was
        });
    }

    /// Until the streams break.
    async fn follow(&mut self, pause: &mut Duration) -> Result<Over, String> {
        let mut seen = self.streams();
        loop {
            match seen.next().await {
                None => return Err("the watch ended".to_owned()),
                Some(Err(message)) if is_other_authority(&message) => return Ok(Over::ClusterGone { message }),
                Some(Err(message)) => return Err(message),
                // A watch that begins says so before it has heard anything.
                Some(Ok(Seen::Nothing)) => {}
                Some(Ok(event)) => {
                    if let Some(over) = self.take(event) {
                        return self.confirm(over).await;
                    }
                    *pause = FIRST_PAUSE;
                    self.found();
                }
            }
        }
    }

    /// A new cluster behind the same address has no such object either, and may not have said yet who it is.
    async fn confirm(&self, over: Over) -> Result<Over, String> {
        let Over::Deleted { .. } = over else { return Ok(over) };
        let uid = identify(&Api::all(self.client.clone())).await?;
        Ok(self.compare(&uid).unwrap_or(over))
    }

    fn take(&mut self, seen: Seen) -> Option<Over> {
        match seen {
            Seen::Gone => return Some(Over::Deleted { object: self.spec.object() }),
            Seen::Target(service) => {
                if let Some(service) = service {
                    self.resolve(&service);
                }
            }
            Seen::Member(name, Some(members)) => self.index.apply(&name, members),
            Seen::Member(name, None) => self.index.delete(&name),
            Seen::Identity(uid) => return self.compare(&uid),
            Seen::All(objects) => self.index.reset(objects),
            Seen::Nothing => return None,
        }
        self.publish();
        None
    }

    fn streams(&self) -> SelectAll<Events> {
        let name = &self.spec.name;
        let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut all = SelectAll::new();
        all.push(identity(self.client.clone()));
        match self.spec.kind {
            Kind::Service => {
                all.push(target(self.api::<Service>(), by_name, |service| Some(Box::new(service))));
                let slices = watcher::Config::default().labels(&format!("kubernetes.io/service-name={name}"));
                all.push(members(self.api::<EndpointSlice>(), slices, of_slice));
            }
            Kind::Deployment => {
                all.push(target(self.api::<Deployment>(), by_name, |_| None));
                let pods = watcher::Config::default().labels(self.pods.as_deref().unwrap_or_default());
                all.push(members(self.api::<Pod>(), pods, of_pod));
            }
            Kind::Pod => {
                all.push(target(self.api::<Pod>(), by_name.clone(), |_| None));
                all.push(members(self.api::<Pod>(), by_name, of_pod));
            }
        }
        all
    }
}

/// The node this is: its name, and those of its addresses that this machine holds. Where nodes may not be listed, this
/// machine's name is tried: kubelet calls its node so unless told otherwise.
async fn own_node(client: &Client) -> (Option<String>, Vec<IpAddr>) {
    let nodes: Api<Node> = Api::all(client.clone());
    let all = kube::api::ListParams::default();
    let Ok(Ok(nodes)) = timeout(IDENTITY_TIMEOUT, nodes.list(&all)).await else { return (own_name(), Vec::new()) };
    for node in nodes {
        let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
        // Only a machine's own address can be bound; nothing is sent.
        let held =
            addresses.filter_map(|a| a.address.parse().ok()).filter(|ip: &IpAddr| UdpSocket::bind((*ip, 0)).is_ok());
        let held: Vec<IpAddr> = held.collect();
        if !held.is_empty() {
            return (Some(node.name_any()), held);
        }
    }
    (None, Vec::new())
}

fn own_name() -> Option<String> {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_str().ok().map(str::to_lowercase);
    #[cfg(not(unix))]
    None
}

/// The cluster's identity, again and again. Its failure also tells that the API server is away: a watch of a vanished
/// server would be silent for minutes.
fn identity(client: Client) -> Events {
    let mut interval = tokio::time::interval(IDENTITY_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let namespaces: Api<Namespace> = Api::all(client);
    let asked = futures::stream::unfold((interval, namespaces), |(mut interval, namespaces)| async move {
        interval.tick().await;
        let seen = identify(&namespaces).await.map(Seen::Identity);
        Some((seen, (interval, namespaces)))
    });
    asked.boxed()
}

/// kube-system's uid; empty where that may not be read.
async fn identify(namespaces: &Api<Namespace>) -> Result<String, String> {
    match timeout(IDENTITY_TIMEOUT, namespaces.get("kube-system")).await {
        Ok(Ok(namespace)) => Ok(namespace.metadata.uid.unwrap_or_default()),
        // Not allowed to look: then the watches alone must tell.
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(String::new()),
        Ok(Err(error)) => Err(innermost(&error)),
        Err(_) => Err("the API server does not answer".to_owned()),
    }
}

/// Events of the one object that the forward is for.
fn target<K>(api: Api<K>, config: watcher::Config, read: fn(K) -> Option<Box<Service>>) -> Events
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut there = false;
    let seen = watcher(api, config).map(move |event| {
        Ok(match event.map_err(|error| innermost(&error))? {
            watcher::Event::Init => {
                there = false;
                Seen::Nothing
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                there = true;
                Seen::Target(read(object))
            }
            watcher::Event::InitDone if !there => Seen::Gone,
            watcher::Event::InitDone => Seen::Nothing,
            watcher::Event::Delete(_) => Seen::Gone,
        })
    });
    seen.boxed()
}

/// Events of the objects that list endpoints. After a list the new whole replaces the old at once.
fn members<K>(api: Api<K>, config: watcher::Config, read: fn(&K) -> Vec<Member>) -> Events
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    let seen = watcher(api, config).map(move |event| {
        Ok(match event.map_err(|error| innermost(&error))? {
            watcher::Event::Init => {
                listed.clear();
                Seen::Nothing
            }
            watcher::Event::InitApply(object) => {
                listed.insert(object.name_any(), read(&object));
                Seen::Nothing
            }
            watcher::Event::InitDone => Seen::All(std::mem::take(&mut listed).into_iter().collect()),
            watcher::Event::Apply(object) => Seen::Member(object.name_any(), Some(read(&object))),
            watcher::Event::Delete(object) => Seen::Member(object.name_any(), None),
        })
    });
    seen.boxed()
}

/// rustls' words for a certificate that another authority signed; expiry and wrong names are other matters.
fn is_other_authority(message: &str) -> bool {
    message.contains("invalid peer certificate: UnknownIssuer")
        || message.contains("invalid peer certificate: BadSignature")
}

fn denied(error: kube::Error, verb: &'static str, resource: &'static str, object: &ObjectRef) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => Error::NotFound { object: object.clone() },
        kube::Error::Api(status) if status.code == 403 => {
            Error::Forbidden { verb, resource, namespace: object.namespace().to_owned() }
        }
        error => Error::Api(innermost(&error)),
    }
}

fn known_ports(service: &Service) -> Vec<String> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports
        .filter(|p| is_tcp(p))
        .map(|p| match &p.name {
            Some(name) => format!("{} ({name})", p.port),
            None => p.port.to_string(),
        })
        .collect()
}
