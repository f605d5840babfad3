//! One look: targets, objects, standpoint, addresses and probes, put together as a Snapshot.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::addresses::{Wanted, candidates};
use super::client::Cluster;
use super::targets::{self, Seen};
use super::{answering, environment, node, objects, other_policies, probes, redact, sockets};
use crate::model::pod::Pod;
use crate::model::snapshot::SNAPSHOT_VERSION;
use crate::model::{Client, Gap, GapReason, Input, Kind, Objects, Probe, Snapshot, Target, TargetWord, Vantage};

/// Which targets the command line means.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub arguments: Vec<String>,
    /// `-A`.
    pub all: bool,
    /// Port and path of `--address`, where it was a URL.
    pub port: Option<u16>,
    pub path: Option<String>,
    /// That URL began with `https://`.
    pub https: bool,
}

/// Why there are no targets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Target(#[from] targets::Error),
    /// The Services may not be read: nothing can be said at all.
    #[error("may not {verb} {resource}")]
    Denied { verb: String, resource: String, namespace: String },
    /// The credentials ended since the API server was first asked.
    #[error("the API server refuses the credentials")]
    Unauthorized,
    #[error("API server: {message}")]
    Api { message: String },
}

/// Chooses the targets.
///
/// # Errors
/// Where an argument names none, several, or Services may not be read.
pub async fn choose(cluster: &Cluster, scope: &Scope) -> Result<Vec<Target>, Error> {
    let word = |typed: &String| typed.parse::<TargetWord>().map_err(targets::Error::from);
    let arguments = scope.arguments.iter().map(word).collect::<Result<Vec<_>, _>>()?;
    let mut gaps = Vec::new();
    let mut homes: Vec<String> = arguments.iter().filter_map(|a| a.namespace.clone()).collect();
    homes.push(cluster.namespace.clone());
    if arguments.is_empty() && !cluster.namespace_named {
        homes.push(targets::BOOKINFO.to_owned());
    }
    homes.sort();
    homes.dedup();
    let mut more_gaps = Vec::new();
    let wants_pods = arguments.iter().any(|a| a.kind == Kind::Pod);
    // Side by side: a slow or far API server makes each answer one more wait.
    let (services, namespaces, workloads) = futures::join!(
        objects::services(cluster, &homes, &mut gaps),
        objects::namespaces(cluster, &mut more_gaps),
        join_all(homes.iter().map(|home| workloads(cluster, home, wants_pods))),
    );
    if services.is_empty()
        && let Some(gap) = gaps.first()
    {
        return Err(denied(gap, &homes));
    }
    let namespaces: Vec<String> = namespaces.iter().map(ResourceExt::name_any).collect();
    let (deployments, pods): (Vec<_>, Vec<_>) = workloads.into_iter().unzip();
    let (deployments, pods) = (deployments.concat(), pods.concat());
    let seen = Seen { services: &services, namespaces: &namespaces, deployments: &deployments, pods: &pods };
    let mut chosen = if !arguments.is_empty() {
        let one = |a: &TargetWord| targets::choose(a, &cluster.namespace, cluster.namespace_named, &seen);
        arguments.iter().map(one).collect::<Result<Vec<_>, _>>()?
    } else if scope.all {
        targets::all(&seen)
    } else {
        targets::defaults(cluster.namespace_named.then_some(cluster.namespace.as_str()), &seen)?
    };
    if let [only] = chosen.as_mut_slice() {
        only.node_port = scope.port.or(only.node_port);
        only.https = scope.https;
        if let Some(path) = scope.path.as_ref().filter(|p| p.as_str() != "/" && **p != only.path) {
            only.usual_path = Some(std::mem::replace(&mut only.path, path.clone())).filter(|usual| usual != "/");
        }
    }
    chosen.dedup_by(|a, b| a.to_string() == b.to_string());
    Ok(chosen)
}

/// The Deployments of a namespace, and with `pods` its pods; none where they may not be listed.
async fn workloads(cluster: &Cluster, namespace: &str, pods: bool) -> (Vec<Deployment>, Vec<Pod>) {
    let all = ListParams::default();
    let listed = async {
        if !pods {
            return Vec::new();
        }
        let api = Api::namespaced(cluster.client.clone(), namespace);
        objects::list(cluster, api, &all, "pods").await.unwrap_or_default()
    };
    let api = Api::namespaced(cluster.client.clone(), namespace);
    let (deployments, pods) = futures::join!(objects::list(cluster, api, &all, "deployments"), listed);
    (deployments.unwrap_or_default(), pods)
}

fn denied(gap: &Gap, homes: &[String]) -> Error {
    match &gap.reason {
        GapReason::Denied { verb, resource } => {
            let namespace = homes.first().cloned().unwrap_or_default();
            Error::Denied { verb: verb.clone(), resource: resource.clone(), namespace }
        }
        GapReason::Unauthorized => Error::Unauthorized,
        GapReason::Failed { message } => Error::Api { message: message.clone() },
        other => Error::Api { message: format!("{other:?}") },
    }
}

/// Looks at the targets. Total: what cannot be seen is a Gap.
pub async fn look(cluster: &Cluster, targets: &[Target], wanted: &Wanted) -> Snapshot {
    let mut snapshot = objects_and_standpoint(cluster, targets, wanted).await;
    let begun = begin(cluster, &snapshot).await;
    begun.file(&mut snapshot).await;
    complete(cluster, snapshot).await
}

/// Looks for about a second: enough to see that a page does not answer, what the objects and the rules say of it, and
/// where dials vanish, who on this node stopped them and whether its pods answer it. A dial that would fail later counts
/// as a timeout.
pub async fn glance(cluster: &Cluster, targets: &[Target], wanted: &Wanted) -> Snapshot {
    let mut snapshot = objects_and_standpoint(cluster, targets, wanted).await;
    // The pods are dialled before it is known whether that is wanted: nobody shall wait for it.
    let pods = probes::to_pods(&snapshot, probes::GLANCE_LIMIT);
    let (begun, pods) = futures::join!(begin(cluster, &snapshot), pods);
    begun.file(&mut snapshot).await;
    if probes::is_unclear(&snapshot) {
        probes::file(&mut snapshot, pods);
    }
    redact::words(&mut snapshot);
    snapshot
}

/// What a look begins with: kube-proxy's logs and its health, and impatient dials.
struct Begun {
    logs: Vec<(String, objects::Log)>,
    proxy_health: Option<Probe>,
    dials: probes::Brought,
}

async fn begin(cluster: &Cluster, seen: &Snapshot) -> Begun {
    let health = async {
        seen.host.as_ref()?;
        tokio::task::spawn_blocking(node::proxy_health).await.ok().flatten()
    };
    let dials = probes::first(seen, probes::GLANCE_LIMIT);
    let (logs, proxy_health, dials) = futures::join!(objects::logs(cluster, seen), health, dials);
    Begun { logs, proxy_health, dials }
}

impl Begun {
    async fn file(self, snapshot: &mut Snapshot) {
        objects::file_logs(snapshot, self.logs);
        if let Some(host) = &mut snapshot.host {
            host.proxy_health = self.proxy_health;
        }
        probes::file(snapshot, self.dials);
        count_again(snapshot).await;
    }
}

/// Makes a look of a glance: the objects are not read again. What the glance does not show: what crashed, what there was
/// before, where the path breaks, and what becomes of the dials that it gave up. These take the longest, so all goes on
/// side by side.
pub async fn complete(cluster: &Cluster, glance: Snapshot) -> Snapshot {
    let mut snapshot = glance;
    let wanted = snapshot.targets.iter().any(|t| !probes::answered(&snapshot, t));
    let unclear = wanted && probes::is_unclear(&snapshot);
    let homes = homes(&snapshot.targets);
    let seen = &snapshot;
    let again = async { if unclear { Some(probes::first(seen, probes::DIAL_LIMIT).await) } else { None } };
    let policies = async { if wanted { other_policies::list(cluster, &homes).await } else { Ok(Vec::new()) } };
    let ((logs, gaps), revisions, policies, again, behind) = futures::join!(
        objects::crash_logs(cluster, seen),
        objects::revisions(cluster, seen),
        policies,
        again,
        probes::second(cluster, seen),
    );
    snapshot.objects.replica_sets = revisions;
    snapshot.objects.crash_logs = logs;
    snapshot.gaps.extend(gaps);
    match policies {
        Ok(found) => snapshot.objects.other_policies = found,
        Err(reason) => snapshot.gaps.push(Gap { input: Input::OtherPolicies, subject: None, reason }),
    }
    if let Some(again) = again {
        probes::forget_first(&mut snapshot);
        probes::file(&mut snapshot, again);
    }
    probes::file(&mut snapshot, behind);
    probes::find_taken_ports(&mut snapshot).await;
    read_sockets(&mut snapshot).await;
    redact::words(&mut snapshot);
    snapshot
}

/// Where pods of this node refused, what they listen on tells why.
async fn read_sockets(snapshot: &mut Snapshot) {
    let pods = sockets::refusing(snapshot);
    let Some(host) = snapshot.host.as_mut().filter(|_| !pods.is_empty()) else { return };
    host.pod_sockets = tokio::task::spawn_blocking(move || sockets::read(&pods)).await.unwrap_or_default();
}

/// Where the outsider probe failed, which of this node's counters rose meanwhile tells who stopped it.
async fn count_again(snapshot: &mut Snapshot) {
    let failed = |p: &Probe| p.vantage == Vantage::Outsider && !p.outcome.is_right();
    if !snapshot.probes.iter().any(failed) {
        return;
    }
    let Some(mut host) = snapshot.host.take() else { return };
    let before = host.clone();
    let counted = tokio::task::spawn_blocking(move || {
        node::count_again(&mut host);
        host
    });
    snapshot.host = Some(counted.await.unwrap_or(before));
}

async fn objects_and_standpoint(cluster: &Cluster, targets: &[Target], wanted: &Wanted) -> Snapshot {
    let homes = homes(targets);
    let taken_at = jiff::Timestamp::now();
    let (mut gaps, mut more_gaps, mut other_gaps) = (Vec::new(), Vec::new(), Vec::new());
    let (services, namespaces, rest, answering) = futures::join!(
        objects::services(cluster, &homes, &mut gaps),
        own_namespaces(cluster, &homes, &mut more_gaps),
        objects::rest(cluster, &homes, &mut other_gaps),
        answering::answering(cluster),
    );
    gaps.extend(more_gaps);
    gaps.extend(other_gaps);
    let answering = answering.map_err(|reason| gaps.push(Gap { input: Input::Answering, subject: None, reason })).ok();
    let client = Client {
        http_proxy: environment::http_proxy(),
        credentials_end: answering::credentials_end(&cluster.config.auth_info),
        taken_ports: Vec::new(),
    };
    let mut objects = Objects { services, namespaces, ..rest };
    objects::endpoints(cluster, targets, &mut objects, &mut gaps).await;
    let (server_host, server_port, nodes) = (cluster.server_host.clone(), cluster.server_port, objects.nodes.clone());
    let stood = tokio::task::spawn_blocking(move || {
        let stand = node::stand(&server_host, server_port, &nodes);
        let (host, gaps) = node::host(&nodes, &stand);
        (stand, host, gaps)
    });
    let (stand, host, host_gaps) = stood.await.unwrap_or_default();
    gaps.extend(host_gaps);
    let addresses = candidates(cluster, &objects.nodes, &stand, wanted).await;
    Snapshot {
        version: SNAPSHOT_VERSION,
        taken_at,
        cluster: cluster.uid.clone(),
        stand,
        targets: targets.to_vec(),
        addresses,
        objects,
        probes: Vec::new(),
        host,
        client,
        answering,
        gaps,
    }
}

/// The targets' namespaces.
fn homes(targets: &[Target]) -> Vec<String> {
    let mut homes: Vec<String> = targets.iter().map(|t| t.namespace.clone()).collect();
    homes.sort();
    homes.dedup();
    homes
}

/// The targets' namespaces, whose labels say which pods they admit.
async fn own_namespaces(cluster: &Cluster, homes: &[String], gaps: &mut Vec<Gap>) -> Vec<Namespace> {
    let mut found = objects::namespaces(cluster, gaps).await;
    found.retain(|n| homes.contains(&n.name_any()));
    found
}
