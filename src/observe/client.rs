//! From kubectl's flags and kubeconfig to a client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel as ProxyTunnel};
use hyper_util::client::legacy::connect::{Connection as Connected, HttpConnector};
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Namespace;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{
    AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster, NamedContext,
};
use kube::{Api, Client, Config};

use super::answering::credentials_end;
use crate::statedir;

/// kubectl's own connection flags, meaning what they mean there.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Connection {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub namespace: Option<String>,
    pub server: Option<String>,
    /// Never written to a file.
    #[serde(skip)]
    pub token: Option<String>,
    pub as_user: Option<String>,
    pub as_groups: Vec<String>,
    pub certificate_authority: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub tls_server_name: Option<String>,
    pub insecure_skip_tls_verify: bool,
    /// None: our own default for one request.
    pub request_timeout: Option<Duration>,
}

/// One request may take this long where `--request-timeout` says nothing.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Connecting to the API server may take this long: a dead one is named within 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A tunnel's connection says so often that it lives, where nothing else moves on it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What was sent must be acknowledged within this.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the administrators' kubeconfigs of kubeadm, k3s and RKE2 lie.
const ADMIN_KUBECONFIGS: [&str; 3] =
    ["/etc/kubernetes/admin.conf", "/etc/rancher/k3s/k3s.yaml", "/etc/rancher/rke2/rke2.yaml"];

/// A connected cluster.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub config: Config,
    /// The flags it was reached by.
    pub connection: Connection,
    /// Host name or IP of the API server, without brackets.
    pub server_host: String,
    pub server_port: u16,
    /// Namespace of `-n` or the context, else `default`.
    pub namespace: String,
    /// Whether the user named a namespace by `-n`.
    pub namespace_named: bool,
    /// The kubeconfig file in use, where it is a single one.
    pub kubeconfig: Option<PathBuf>,
    /// uid of namespace kube-system: the cluster's identity; "" where it may not be read.
    pub uid: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no kubeconfig found")]
    NoKubeconfig,
    #[error("kubeconfig {path} is readable by root only")]
    NotReadable { path: PathBuf },
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("kubeconfig has no {kind} {name:?}, but {}", known.join(", "))]
    Unknown { kind: &'static str, name: String, known: Vec<String> },
    #[error("client for {server}: {source}")]
    Client { server: String, source: kube::Error },
    #[error("API server {server} does not answer: {message}")]
    Unreachable { server: String, message: String },
    /// `ended`: when they ended, where that is known.
    #[error("API server {server} refuses the credentials")]
    Unauthorized { server: String, ended: Option<jiff::Timestamp> },
}

/// Reads the kubeconfig, applies the flags over it, and asks the API server who it is.
///
/// # Errors
/// See [`Error`]; a 403 on the identity is none.
pub async fn connect(connection: &Connection) -> Result<Cluster, Error> {
    let (mut kubeconfig, path) = read(connection)?;
    overlay(&mut kubeconfig, connection)?;
    let options = KubeConfigOptions {
        context: connection.context.clone(),
        cluster: connection.cluster.clone(),
        user: connection.user.clone(),
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    // A diagnosing tool meets 503s on purpose; retrying them for minutes would hide what they say.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let server_host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let server_port = config.cluster_url.port_u16().unwrap_or(match config.cluster_url.scheme_str() {
        Some("http") => 80,
        _ => 443,
    });
    let server = format!("{}", config.cluster_url);
    let client = Client::try_from(config.clone()).map_err(|source| Error::Client { server: server.clone(), source })?;
    let uid = identity(&client, &config, connection, server.trim_end_matches('/')).await?;
    Ok(Cluster {
        client,
        namespace: connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone()),
        namespace_named: connection.namespace.is_some(),
        connection: connection.clone(),
        config,
        server_host,
        server_port,
        kubeconfig: path,
        uid,
    })
}

async fn identity(client: &Client, config: &Config, connection: &Connection, server: &str) -> Result<String, Error> {
    let limit = connection.request_timeout.unwrap_or(REQUEST_TIMEOUT).min(CONNECT_TIMEOUT + Duration::from_millis(500));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match tokio::time::timeout(limit, namespaces.get("kube-system")).await {
        Ok(Ok(namespace)) => Ok(namespace.metadata.uid.unwrap_or_default()),
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => {
            let ended = credentials_end(&config.auth_info).filter(|end| *end <= jiff::Timestamp::now());
            Err(Error::Unauthorized { server: server.to_owned(), ended })
        }
        Ok(Err(kube::Error::Api(status))) if status.code < 500 => Ok(String::new()),
        Ok(Err(error)) => Err(Error::Unreachable { server: server.to_owned(), message: innermost(&error) }),
        Err(_) => Err(Error::Unreachable {
            server: server.to_owned(),
            message: format!("no answer within {} s", limit.as_secs()),
        }),
    }
}

/// A client for tunnels: HTTP/1.1, for nothing else can be upgraded; no limit on reading or writing, for one under
/// back-pressure may stand still for long; a peer that vanished is found by the kernel.
///
/// # Errors
/// Of the credentials, as in [`connect`].
pub fn tunnel_client(config: &Config) -> Result<Client, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE));
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
    http.set_tcp_user_timeout(Some(USER_TIMEOUT));
    http.set_connect_timeout(config.connect_timeout);
    let Some(proxy) = &config.proxy_url else { return over(http, config) };
    let basic = proxy.authority().and_then(|a| a.as_str().split_once('@'));
    match proxy.scheme_str() {
        Some("socks5") => over(SocksV5::new(proxy.clone(), http), config),
        Some("http") if basic.is_none() => over(ProxyTunnel::new(proxy.clone(), http), config),
        // kube's own way: TLS to the proxy, or credentials for it.
        _ => {
            let mut config = config.clone();
            (config.read_timeout, config.write_timeout) = (None, None);
            Client::try_from(config)
        }
    }
}

/// The layers of kube's own client over a connector of ours.
fn over<H>(connector: H, config: &Config) -> Result<Client, kube::Error>
where
    H: tower::Service<http::Uri> + Clone + Send + Sync + 'static,
    H::Response: Connected + hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    H::Future: Send + 'static,
    H::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        // Answers that are no upgrade are rare, and their connections belong to whatever runtime asked.
        .pool_max_idle_per_host(0)
        .build::<_, kube::client::Body>(connector);
    let service = tower::ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// The last link of a chain of errors, which names the real cause.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The kubeconfig that kubectl would use; as root without one, the administrator's of this node.
fn read(connection: &Connection) -> Result<(Kubeconfig, Option<PathBuf>), Error> {
    if let Some(path) = &connection.kubeconfig {
        return Ok((Kubeconfig::read_from(path)?, Some(path.clone())));
    }
    if let Some(found) = Kubeconfig::from_env()? {
        let single = std::env::var_os("KUBECONFIG").map(PathBuf::from).filter(|p| p.is_file());
        return Ok((found, single));
    }
    let home = etcetera::home_dir().ok().map(|home| home.join(".kube/config")).filter(|p| p.is_file());
    let admin = || ADMIN_KUBECONFIGS.iter().map(PathBuf::from).find(|p| p.is_file());
    if let Some(path) = home.or_else(|| statedir::is_root().then(admin).flatten()) {
        return Ok((Kubeconfig::read_from(&path)?, Some(path)));
    }
    if connection.server.is_some() {
        return Ok((Kubeconfig::default(), None));
    }
    match ADMIN_KUBECONFIGS.iter().map(Path::new).find(|p| p.exists()) {
        Some(path) => Err(Error::NotReadable { path: path.to_owned() }),
        None => Err(Error::NoKubeconfig),
    }
}

/// The same connection, tied to what it means now: the kubeconfig file and the context by name. Another current context
/// tomorrow leads somewhere else; who runs until tomorrow must not follow it. As it is where no kubeconfig is readable.
pub fn pinned(connection: &Connection) -> Connection {
    let mut pinned = connection.clone();
    if let Ok((kubeconfig, path)) = read(connection) {
        pinned.kubeconfig = path;
        pinned.context = pinned.context.or(kubeconfig.current_context).filter(|c| !c.is_empty());
    }
    pinned
}

/// Writes the flags over the entries that the chosen context names, as kubectl does.
fn overlay(kubeconfig: &mut Kubeconfig, flags: &Connection) -> Result<(), Error> {
    let context_name =
        match flags.context.clone().or_else(|| kubeconfig.current_context.clone()).filter(|c| !c.is_empty()) {
            Some(name) => name,
            None => {
                let name = "bookaccess".to_owned();
                let context =
                    kube::config::Context { cluster: name.clone(), user: Some(name.clone()), ..Default::default() };
                kubeconfig.contexts.push(NamedContext {
                    name: name.clone(),
                    context: Some(context),
                    other: Default::default(),
                });
                kubeconfig.clusters.push(NamedCluster {
                    name: name.clone(),
                    cluster: Some(Default::default()),
                    other: Default::default(),
                });
                kubeconfig.auth_infos.push(NamedAuthInfo {
                    name: name.clone(),
                    auth_info: Some(Default::default()),
                    other: Default::default(),
                });
                kubeconfig.current_context = Some(name.clone());
                name
            }
        };
    let known: Vec<String> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
    let Some(context) = kubeconfig.contexts.iter().find(|c| c.name == context_name).and_then(|c| c.context.clone())
    else {
        return Err(Error::Unknown { kind: "context", name: context_name, known });
    };
    let cluster_name = flags.cluster.clone().unwrap_or(context.cluster);
    let known: Vec<String> = kubeconfig.clusters.iter().map(|c| c.name.clone()).collect();
    let Some(cluster) =
        kubeconfig.clusters.iter_mut().find(|c| c.name == cluster_name).and_then(|c| c.cluster.as_mut())
    else {
        return Err(Error::Unknown { kind: "cluster", name: cluster_name, known });
    };
    if let Some(server) = &flags.server {
        cluster.server = Some(server.clone());
    }
    if let Some(path) = &flags.certificate_authority {
        cluster.certificate_authority = Some(path.display().to_string());
        cluster.certificate_authority_data = None;
    }
    if flags.insecure_skip_tls_verify {
        cluster.insecure_skip_tls_verify = Some(true);
    }
    if let Some(name) = &flags.tls_server_name {
        cluster.tls_server_name = Some(name.clone());
    }
    let Some(user_name) = flags.user.clone().or(context.user) else {
        return Ok(());
    };
    let known: Vec<String> = kubeconfig.auth_infos.iter().map(|c| c.name.clone()).collect();
    match kubeconfig.auth_infos.iter_mut().find(|u| u.name == user_name).and_then(|u| u.auth_info.as_mut()) {
        Some(user) => overlay_user(user, flags),
        None => {
            return Err(Error::Unknown { kind: "user", name: user_name, known });
        }
    }
    Ok(())
}

fn overlay_user(user: &mut AuthInfo, flags: &Connection) {
    if let Some(token) = &flags.token {
        // A token on the command line replaces every other credential, as in kubectl.
        *user = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
    }
    if let Some(path) = &flags.client_certificate {
        user.client_certificate = Some(path.display().to_string());
        user.client_certificate_data = None;
    }
    if let Some(path) = &flags.client_key {
        user.client_key = Some(path.display().to_string());
        user.client_key_data = None;
    }
    if let Some(name) = &flags.as_user {
        user.impersonate = Some(name.clone());
    }
    if !flags.as_groups.is_empty() {
        user.impersonate_groups = Some(flags.as_groups.clone());
    }
}
