//! What one forward is asked to do: the words of the command line, and the complete order that a daemon carries out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::i18n::Locale;
pub use crate::model::Kind;
use crate::model::{ObjectRef, PortRef};
use crate::observe::client::Connection;

/// `kubectl bookaccess forward [VERB]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardVerb {
    /// Until Ctrl-C, in this terminal.
    #[default]
    Foreground,
    Start,
    Stop,
    Restart,
    Status,
    Logs,
    /// As a service of systemd's; its unit says so.
    Service,
}

/// The words of the command line, not yet understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ForwardArgs {
    pub verb: ForwardVerb,
    /// TARGET as typed (`svc/productpage`, `bookinfo/productpage`, `deploy/x`, `pod/x`); for stop, restart, status
    /// and logs a forward's id or a TARGET. None: the first default target, or for stop and the like the only one.
    pub target: Option<String>,
    /// `-n`. None: the context's namespace, or the one written in TARGET.
    pub namespace: Option<String>,
    /// `[LISTEN:]PORT` as kubectl spells it: `30080:http`, `:9080`, `9080`. None: the Service's own port.
    pub pairs: Vec<String>,
    /// `--address`, comma separated or repeated. None: localhost, as kubectl.
    pub addresses: Vec<String>,
    /// `--mode`.
    pub mode: Mode,
    /// `--front`: lead the NodePort to this forward always, not only while it fails (root on a node).
    pub front: bool,
    /// `stop --all`.
    pub all: bool,
    /// `logs -f`.
    pub follow: bool,
    /// `logs --raw`: the lines as they are in the file.
    pub raw: bool,
    /// `logs --tail`. None: all.
    pub tail: Option<usize>,
    /// `status -o json`.
    pub json: bool,
    /// `--allow-cidr`, as typed.
    pub allow: Vec<String>,
    pub limits: Limits,
    /// `--proxy-protocol v2`.
    pub proxy_protocol: bool,
    /// `--no-wait-page`.
    pub no_wait_page: bool,
    /// `--metrics`, as typed.
    pub metrics: Option<String>,
    /// `start --systemd`.
    pub systemd: bool,
    /// `start --print-unit`.
    pub print_unit: bool,
}

/// What a forward takes on at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Open connections from one address.
    pub per_client: usize,
    /// Connections that wait for a pod at a time.
    pub parked: usize,
    /// So long a connection waits for a pod, in seconds.
    pub patience_seconds: u64,
    /// Both sides may be silent so long before the first byte, in seconds; 0: for ever.
    pub first_byte_seconds: u64,
}

impl Default for Limits {
    /// A node's worth of browsers; 30 s is what browsers and proxies commonly wait, and a rolling update or a restart
    /// is over by then. A browser's spare connection may be silent for minutes, one of a slowloris for ever.
    fn default() -> Self {
        Self { connections: 10_000, per_client: 512, parked: 128, patience_seconds: 30, first_byte_seconds: 300 }
    }
}

/// How bytes travel to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Direct where this host reaches the pod, else through the API server; chosen per pod.
    #[default]
    Auto,
    /// By rules of our own to the pod's IP, where they lead there; else as auto.
    Kernel,
    /// To the pod's IP.
    Direct,
    /// By port-forward through the API server.
    Tunnel,
}

impl std::str::FromStr for Mode {
    type Err = SpecError;

    fn from_str(s: &str) -> Result<Self, SpecError> {
        match s {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "direct" => Ok(Self::Direct),
            "tunnel" => Ok(Self::Tunnel),
            other => Err(SpecError::Mode(other.to_owned())),
        }
    }
}

/// When rules of our own lead the NodePort to our listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Front {
    /// Only a listener.
    #[default]
    Never,
    /// While the NodePort fails the outsider probe.
    Standby,
    Always,
}

/// One listening port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// 0: any free port.
    pub listen: u16,
    /// The Service's port by number or name; for a pod or Deployment the container's.
    pub port: PortRef,
}

impl std::str::FromStr for Pair {
    type Err = SpecError;

    /// kubectl's spelling: `30080:http`, `:9080` (any free port), `9080` (the same on both sides).
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = || SpecError::Pair(text.to_owned());
        let (listen, port) = match text.split_once(':') {
            Some((listen, port)) => (Some(listen), port),
            None => (None, text),
        };
        let port = match port.parse::<u16>() {
            Ok(0) => return Err(bad()),
            Ok(number) => PortRef::Number(number),
            // A number that is no port, such as 99999 or -1, is no name either.
            Err(_) if port.parse::<i64>().is_ok() || !is_port_name(port) => return Err(bad()),
            Err(_) => PortRef::Name(port.to_owned()),
        };
        let listen = match (listen, &port) {
            (Some(""), _) | (None, PortRef::Name(_)) => 0,
            (Some(listen), _) => listen.parse().map_err(|_| bad())?,
            (None, PortRef::Number(number)) => *number,
        };
        Ok(Self { listen, port })
    }
}

/// IANA_SVC_NAME as Kubernetes checks it, loosely: a Service's port name may be a DNS label.
fn is_port_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// The addresses that `--address` means; `localhost` is 127.0.0.1 and ::1 as in kubectl.
///
/// # Errors
/// Where a word is neither `localhost` nor an IP address.
pub fn addresses(words: &[String]) -> Result<Vec<IpAddr>, SpecError> {
    let mut all = Vec::new();
    for word in words.iter().flat_map(|w| w.split(',')).map(str::trim).filter(|w| !w.is_empty()) {
        if word == "localhost" {
            all.extend(LOCALHOST);
        } else {
            all.push(word.parse().map_err(|_| SpecError::Address(word.to_owned()))?);
        }
    }
    if all.is_empty() {
        all.extend(LOCALHOST);
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|ip| seen.insert(*ip));
    Ok(all)
}

/// The ranges that `--allow-cidr` means; an address alone is a range of one.
///
/// # Errors
/// Where a word is neither.
pub fn ranges(words: &[String]) -> Result<Vec<IpNet>, SpecError> {
    let range = |word: &str| word.parse().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
    let words = words.iter().flat_map(|w| w.split(',')).map(str::trim).filter(|w| !w.is_empty());
    words.map(|word| range(word).ok_or_else(|| SpecError::Range(word.to_owned()))).collect()
}

/// Where `--metrics` listens: a port alone is one of 127.0.0.1.
///
/// # Errors
/// Where it is no address and port, or none of this machine's own loopback: the numbers tell who visits what.
pub fn metrics(word: &str) -> Result<SocketAddr, SpecError> {
    let port = || word.parse::<u16>().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = word.parse().ok().or_else(port).ok_or_else(|| SpecError::Metrics(word.to_owned()))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(SpecError::Metrics(word.to_owned())) }
}

/// kubectl's default for `--address`.
pub const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The page that shows whether the NodePort works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// With its leading slash.
    pub path: String,
    /// Text that only the right application's answer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

/// The complete order. What a daemon needs is in here, except a token, which is never written to a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub pairs: Vec<Pair>,
    /// Bound one by one; never 0.0.0.0 unless the user typed it.
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub front: Front,
    #[serde(default = "Page::root")]
    pub page: Page,
    /// How the cluster is reached; the kubeconfig's path is absolute.
    #[serde(default)]
    pub connection: Connection,
    /// uid of namespace kube-system: another one means that this forward's cluster is gone. "" where unknown.
    #[serde(default)]
    pub cluster: String,
    #[serde(default)]
    pub limits: Limits,
    /// Who may connect; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// Whether pods are told the client's address by a PROXY protocol header, version 2.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether a browser that waits for a pod is shown a page that says so.
    #[serde(default = "yes")]
    pub wait_page: bool,
    /// That page's language.
    #[serde(default)]
    pub locale: Locale,
    /// Where metrics are served, on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

fn yes() -> bool {
    true
}

impl Page {
    /// `/`, whoever answers.
    pub fn root() -> Self {
        Self { path: "/".to_owned(), marker: None }
    }
}

impl Spec {
    /// An order with all that is optional at its default: a listener on localhost, in the way that works here.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pairs: Vec::new(),
            addresses: LOCALHOST.to_vec(),
            mode: Mode::Auto,
            front: Front::Never,
            page: Page::root(),
            connection: Connection::default(),
            cluster: String::new(),
            limits: Limits::default(),
            allow: Vec::new(),
            proxy_protocol: false,
            wait_page: true,
            locale: Locale::default(),
            metrics: None,
        }
    }

    /// The object forwarded to.
    pub fn object(&self) -> ObjectRef {
        ObjectRef::namespaced(self.kind.api_name(), &self.namespace, &self.name)
    }

    /// `bookinfo/productpage`, as findings and status name a target.
    pub fn target(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its name among forwards: the same order for the same cluster has the same id. Safe as a file name and as an
    /// nftables table's.
    pub fn id(&self) -> String {
        let kind = match self.kind {
            Kind::Service => "",
            Kind::Deployment => "deploy-",
            Kind::Pod => "pod-",
        };
        let ports: Vec<String> = self.pairs.iter().map(|p| p.listen.to_string()).collect();
        let cluster: String = self.cluster.chars().filter(char::is_ascii_alphanumeric).take(4).collect();
        let id = format!("{}-{kind}{}-{}-{cluster}", self.namespace, self.name, ports.join("-"));
        id.trim_end_matches('-').to_owned()
    }

    /// The sockets asked for, pair by pair.
    pub fn listen_addresses(&self) -> Vec<Vec<SocketAddr>> {
        self.pairs.iter().map(|p| self.addresses.iter().map(|ip| SocketAddr::new(*ip, p.listen)).collect()).collect()
    }
}

/// Words that mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("{0:?} is no port pair; write LISTEN:PORT, :PORT or PORT")]
    Pair(String),
    #[error("{0:?} is no IP address and not localhost")]
    Address(String),
    #[error("{0:?} is no mode; there are auto, kernel, direct and tunnel")]
    Mode(String),
    #[error("{0:?} is no address range; write 10.0.0.0/8 or an IP address")]
    Range(String),
    #[error("{0:?} is no place for metrics; write 127.0.0.1:PORT or PORT")]
    Metrics(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_kubectl_reads_them() {
        let pair = |text: &str| text.parse::<Pair>();
        let number = |listen, port| Ok(Pair { listen, port: PortRef::Number(port) });
        let name = |listen, port: &str| Ok(Pair { listen, port: PortRef::Name(port.to_owned()) });
        assert_eq!(pair("30080:http"), name(30080, "http"));
        assert_eq!(pair(":9080"), number(0, 9080));
        assert_eq!(pair("9080"), number(9080, 9080));
        assert_eq!(pair("0:9080"), number(0, 9080));
        for bad in ["", ":", "a:", "30080:0", "99999", "1:2:3", "30080:-1", "x:http", "70000:80", "30080:HTTP"] {
            assert_eq!(pair(bad), Err(SpecError::Pair(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn localhost_is_both_loopbacks_and_the_default() {
        let read = |words: &[&str]| addresses(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&[]), Ok(LOCALHOST.to_vec()));
        assert_eq!(read(&["localhost,127.0.0.1"]), Ok(LOCALHOST.to_vec()));
        assert_eq!(read(&["10.0.0.1", "::"]), Ok(vec!["10.0.0.1".parse().unwrap(), "::".parse().unwrap()]));
        assert_eq!(read(&["node1"]), Err(SpecError::Address("node1".to_owned())));
    }

    #[test]
    fn ranges_and_metrics_are_read_or_refused() {
        let read =
            |word: &str| ranges(&[word.to_owned()]).map(|r| r.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read("10.0.0.0/8, fd00::/8").unwrap(), ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(read("192.0.2.7").unwrap(), ["192.0.2.7/32"]);
        for bad in ["10.0.0.0/33", "office", "10.0.0"] {
            assert_eq!(read(bad), Err(SpecError::Range(bad.to_owned())), "{bad}");
        }
        assert_eq!(metrics("9100"), Ok("127.0.0.1:9100".parse().unwrap()));
        assert_eq!(metrics("[::1]:9100"), Ok("[::1]:9100".parse().unwrap()));
        for bad in ["0.0.0.0:9100", "10.0.0.1:9100", "metrics", "99999"] {
            assert_eq!(metrics(bad), Err(SpecError::Metrics(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn orders_of_the_first_version_are_still_understood() {
        let old = r#"{"kind": "Service", "namespace": "a", "name": "b", "pairs": [], "addresses": []}"#;
        let spec: Spec = serde_json::from_str(old).unwrap();
        assert_eq!(spec, Spec { addresses: vec![], ..Spec::new(Kind::Service, "a", "b") });
    }

    #[test]
    fn an_id_tells_clusters_apart() {
        let mut spec = Spec {
            pairs: vec![Pair { listen: 30080, port: PortRef::Name("http".into()) }],
            cluster: "3f9c-77".into(),
            ..Spec::new(Kind::Service, "bookinfo", "productpage")
        };
        assert_eq!(spec.id(), "bookinfo-productpage-30080-3f9c");
        spec.cluster.clear();
        assert_eq!(spec.id(), "bookinfo-productpage-30080");
    }
}
