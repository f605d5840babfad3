//! From the words of the command line to a complete order.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cli::args::Globals;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::facts::node::internal_ips;
use crate::forward::front::Reason;
use crate::forward::spec::{self, Front, Kind, Mode, Page, Pair, Spec};
use crate::forward::{ForwardArgs, ForwardVerb, watch};
use crate::model::{PortRef, Target, TargetWord, Text};
use crate::observe::client::{Cluster, innermost, pinned};
use crate::observe::{self, Scope};
use crate::statedir;

/// Understands TARGET, ports and addresses; the cluster is asked for what the words leave open.
///
/// # Errors
/// Of the words, the connection, or where the target is not there.
pub async fn order(globals: &Globals, args: &ForwardArgs) -> Result<Spec, ExpectedError> {
    let pairs = args.pairs.iter().map(|p| p.parse()).collect::<Result<Vec<Pair>, _>>()?;
    let addresses = spec::addresses(&args.addresses)?;
    let allow = spec::ranges(&args.allow)?;
    let metrics = args.metrics.as_deref().map(spec::metrics).transpose()?;
    let word = args.target.as_deref().map(str::parse::<TargetWord>).transpose()?;
    if args.mode == Mode::Kernel {
        if !args.addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback) {
            return Err(Reason::NoAddress.into());
        }
        if !statedir::is_root() {
            return Err(Reason::NotRoot.into());
        }
    }
    if args.front && !statedir::is_root() {
        return Err(ExpectedError::not_root(Text::new("error.forward.front_needs_root")));
    }
    let cluster = observe::connect(&globals.connection).await?;
    let mut spec = Spec {
        pairs,
        addresses,
        mode: args.mode,
        front: if args.front { Front::Always } else { Front::Never },
        connection: pinned(&globals.connection),
        cluster: cluster.uid.clone(),
        limits: args.limits,
        allow,
        proxy_protocol: args.proxy_protocol,
        wait_page: !args.no_wait_page,
        locale: globals.locale,
        metrics,
        ..Spec::new(Kind::Service, "", "")
    };
    match word {
        Some(TargetWord { kind: kind @ (Kind::Deployment | Kind::Pod), namespace, name }) => {
            spec.kind = kind;
            spec.namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
            spec.name = name;
            if spec.pairs.is_empty() {
                return Err(ExpectedError::new(Exit::Usage, Text::new("error.forward.port_needed"))
                    .hint(Text::new("error.hint.port_pairs")));
            }
        }
        _ => {
            let scope = Scope { arguments: args.target.iter().cloned().collect(), ..Scope::default() };
            let targets = observe::choose(&cluster, &scope).await?;
            let Some(target) = targets.into_iter().next() else {
                return Err(observe::targets::Error::NoDefault.into());
            };
            if spec.pairs.is_empty() {
                spec.pairs.push(own_port(&cluster, &target).await?);
            }
            // On the nodePort of a node it stands by: in front only while that port fails.
            let on_node_port = spec.pairs.iter().any(|p| Some(p.listen) == target.node_port)
                && !spec.addresses.iter().all(IpAddr::is_loopback);
            if args.verb == ForwardVerb::Start && spec.front == Front::Never && on_node_port && statedir::is_root() {
                spec.front = Front::Standby;
            }
            spec.namespace = target.namespace;
            spec.name = target.service;
            spec.page = Page { path: target.path, marker: target.marker };
        }
    }
    if (args.front || args.mode == Mode::Kernel) && args.addresses.is_empty() {
        spec.addresses = vec![node_address(&cluster).await?];
    }
    Ok(spec)
}

/// The Service's port in question, on the port that a browser would dial on a node.
async fn own_port(cluster: &Cluster, target: &Target) -> Result<Pair, ExpectedError> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let service = services.get_opt(&target.service).await.map_err(|error| kube_error(cluster, &error))?;
    let Some(service) = service else {
        return Err(watch::Error::NotFound { object: target.service_ref() }.into());
    };
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let node_port = |p: &&ServicePort| p.node_port.is_some() && p.node_port == target.node_port.map(i32::from);
    let http = |p: &&ServicePort| p.name.as_deref().is_some_and(|n| n.starts_with("http"));
    let port = ports.iter().find(node_port).or_else(|| ports.iter().find(http)).or_else(|| ports.first());
    let number = port.and_then(|p| u16::try_from(p.port).ok());
    let Some(number) = number else {
        let none = PortRef::Name("http".to_owned());
        return Err(watch::Error::NoPort { object: target.service_ref(), port: none, known: Vec::new() }.into());
    };
    let own = port.and_then(|p| p.node_port).and_then(|p| u16::try_from(p).ok());
    Ok(Pair { listen: own.or(target.node_port).unwrap_or(number), port: PortRef::Number(number) })
}

/// The address of the node this runs on, as the cluster knows it.
async fn node_address(cluster: &Cluster) -> Result<IpAddr, ExpectedError> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.map_err(|error| kube_error(cluster, &error))?.items;
    let (host, port) = (cluster.server_host.clone(), cluster.server_port);
    let found = tokio::task::spawn_blocking(move || {
        let name = observe::node::stand(&host, port, &nodes).node?;
        let node = nodes.iter().find(|n| n.name_any() == name)?;
        internal_ips(node).iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).find(IpAddr::is_ipv4)
    });
    let nowhere = || ExpectedError::new(Exit::Usage, Text::new("error.forward.front_needs_node"));
    found.await.ok().flatten().ok_or_else(nowhere)
}

fn kube_error(cluster: &Cluster, error: &kube::Error) -> ExpectedError {
    tracing::debug!(error = innermost(error));
    ExpectedError::of_kube(&format!("{}:{}", cluster.server_host, cluster.server_port), error)
}
