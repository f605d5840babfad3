//! Lists the API objects, in parallel, each with a deadline; a refusal is a Gap.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{self, ConfigMap, Endpoints, Event, Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, LogParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::client::{Cluster, REQUEST_TIMEOUT};
use super::proxies;
use crate::facts::pod::{self, TroubleKind};
use crate::facts::{Index, ServiceFacts, endpoints, node, service};
use crate::model::pod::Pod;
use crate::model::{Gap, GapReason, Input, Objects, Outcome, Probe, Snapshot, Target, Vantage};

pub const KUBE_SYSTEM: &str = "kube-system";

/// The control plane's components that show by a Lease that they live.
const LEADERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// One request's limit.
pub fn limit(cluster: &Cluster) -> Duration {
    cluster.connection.request_timeout.unwrap_or(REQUEST_TIMEOUT)
}

/// What a failed request means for the Snapshot.
pub fn reason(error: &kube::Error, verb: &str, resource: &str) -> GapReason {
    match error {
        kube::Error::Api(status) if status.code == 401 => GapReason::Unauthorized,
        kube::Error::Api(status) if status.code == 403 => {
            GapReason::Denied { verb: verb.to_owned(), resource: resource.to_owned() }
        }
        other => GapReason::Failed { message: super::client::innermost(other) },
    }
}

/// Objects of one answer, as many as kubectl asks for at once: a long list costs the API server less in pages.
const PAGE: u32 = 500;

/// All objects of a kind, or why not.
pub async fn list<K>(cluster: &Cluster, api: Api<K>, params: &ListParams, resource: &str) -> Result<Vec<K>, GapReason>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    let mut page = params.clone().limit(PAGE);
    loop {
        match tokio::time::timeout(limit(cluster), api.list(&page)).await {
            Ok(Ok(answer)) => {
                found.extend(answer.items);
                match answer.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page.continue_token = Some(token),
                    None => return Ok(found),
                }
            }
            // So much was written since the first page that the API server no longer knows that state: the whole, then.
            Ok(Err(kube::Error::Api(status))) if status.code == 410 && page.continue_token.is_some() => {
                found.clear();
                page = params.clone();
            }
            Ok(Err(error)) => return Err(reason(&error, "list", resource)),
            Err(_) => return Err(GapReason::Timeout),
        }
    }
}

/// One object, where it is there, or why it could not be asked for.
async fn get<K>(cluster: &Cluster, api: Api<K>, name: &str, resource: &str) -> Result<Option<K>, GapReason>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    match tokio::time::timeout(limit(cluster), api.get_opt(name)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(reason(&error, "get", resource)),
        Err(_) => Err(GapReason::Timeout),
    }
}

/// Services and namespaces of the whole cluster, which choosing targets needs. Where only some namespaces may be
/// read, those of `namespaces`.
pub async fn services(cluster: &Cluster, namespaces: &[String], gaps: &mut Vec<Gap>) -> Vec<Service> {
    let all = list::<Service>(cluster, Api::all(cluster.client.clone()), &ListParams::default(), "services").await;
    match all {
        Ok(found) => found,
        Err(GapReason::Denied { .. }) => {
            let each = |ns: &String| {
                let api = Api::namespaced(cluster.client.clone(), ns);
                async move { list::<Service>(cluster, api, &ListParams::default(), "services").await }
            };
            let mut found = Vec::new();
            for result in join_all(namespaces.iter().map(each)).await {
                keep(result, Input::Services, gaps, &mut found);
            }
            found
        }
        Err(reason) => {
            gaps.push(Gap { input: Input::Services, subject: None, reason });
            Vec::new()
        }
    }
}

/// Namespaces of the cluster; empty where they may not be listed.
pub async fn namespaces(cluster: &Cluster, gaps: &mut Vec<Gap>) -> Vec<Namespace> {
    let mut found = Vec::new();
    let all = list(cluster, Api::all(cluster.client.clone()), &ListParams::default(), "namespaces").await;
    keep(all, Input::Namespaces, gaps, &mut found);
    found
}

/// Everything else, for the namespaces of the targets.
pub async fn rest(cluster: &Cluster, namespaces: &[String], gaps: &mut Vec<Gap>) -> Objects {
    let client = || cluster.client.clone();
    let all = ListParams::default();
    let proxy_label = ListParams::default().labels("k8s-app=kube-proxy");
    // RKE2's static pods bear another label than the pods of a DaemonSet.
    let static_label = ListParams::default().labels("component=kube-proxy");
    let api_server_label = ListParams::default().labels("component=kube-apiserver");
    let in_each = join_all(namespaces.iter().map(|ns| {
        let all = all.clone();
        async move {
            futures::join!(
                list::<EndpointSlice>(cluster, Api::namespaced(client(), ns), &all, "endpointslices"),
                list::<Pod>(cluster, Api::namespaced(client(), ns), &all, "pods"),
                list::<Deployment>(cluster, Api::namespaced(client(), ns), &all, "deployments"),
                list::<Event>(cluster, Api::namespaced(client(), ns), &all, "events"),
                list::<NetworkPolicy>(cluster, Api::namespaced(client(), ns), &all, "networkpolicies"),
            )
        }
    }));
    let config_maps: Api<ConfigMap> = Api::namespaced(client(), KUBE_SYSTEM);
    let leases = LEADERS.map(|name| get::<Lease>(cluster, Api::namespaced(client(), KUBE_SYSTEM), name, "leases"));
    let (in_each, nodes, daemon_sets, proxy_pods, static_pods, api_server_pods, leases, proxy_config) = futures::join!(
        in_each,
        list::<Node>(cluster, Api::all(client()), &all, "nodes"),
        list::<DaemonSet>(cluster, Api::namespaced(client(), KUBE_SYSTEM), &all, "daemonsets"),
        list::<Pod>(cluster, Api::namespaced(client(), KUBE_SYSTEM), &proxy_label, "pods"),
        list::<Pod>(cluster, Api::namespaced(client(), KUBE_SYSTEM), &static_label, "pods"),
        list::<Pod>(cluster, Api::namespaced(client(), KUBE_SYSTEM), &api_server_label, "pods"),
        join_all(leases),
        get(cluster, config_maps.clone(), "kube-proxy", "configmaps"),
    );
    let mut objects = Objects::default();
    for (slices, pods, deployments, events, policies) in in_each {
        keep(slices, Input::EndpointSlices, gaps, &mut objects.endpoint_slices);
        keep(pods, Input::Pods, gaps, &mut objects.pods);
        keep(deployments, Input::Deployments, gaps, &mut objects.deployments);
        keep(events, Input::Events, gaps, &mut objects.events);
        keep(policies, Input::NetworkPolicies, gaps, &mut objects.network_policies);
    }
    keep(nodes, Input::Nodes, gaps, &mut objects.nodes);
    keep(daemon_sets, Input::KubeProxy, gaps, &mut objects.daemon_sets);
    keep(proxy_pods, Input::KubeProxy, gaps, &mut objects.kube_proxy_pods);
    // What is wrong with this list is wrong with the one before it, and said.
    objects.kube_proxy_pods.extend(static_pods.unwrap_or_default());
    keep(api_server_pods, Input::ApiServer, gaps, &mut objects.api_server_pods);
    let leases: Result<Vec<Option<Lease>>, GapReason> = leases.into_iter().collect();
    keep(leases.map(|l| l.into_iter().flatten().collect()), Input::Leases, gaps, &mut objects.leases);
    // Its absence or denial is no Gap of its own: a cut-off kube-proxy also shows in its log.
    objects.kube_proxy_config = proxy_config.ok().flatten();
    let cilium = objects.daemon_sets.iter().any(|d| d.metadata.name.as_deref() == Some("cilium"));
    if cilium {
        objects.cilium_config = get(cluster, config_maps, "cilium-config", "configmaps").await.ok().flatten();
    }
    objects
}

/// Files what kube-proxy's pods said, and what asking for it showed of the way to the kubelets.
pub fn file_logs(snapshot: &mut Snapshot, logs: Vec<(String, Log)>) {
    for (name, tried) in logs {
        match tried {
            Ok((text, probe)) => {
                snapshot.objects.kube_proxy_logs.extend(text.map(|text| (name, text)));
                snapshot.probes.extend(probe);
            }
            Err(gap) if snapshot.gaps.contains(&gap) => {}
            Err(gap) => snapshot.gaps.push(gap),
        }
    }
}

/// The Endpoints objects of targets that select no pods and have no slices: what a person wrote, or another program.
pub async fn endpoints(cluster: &Cluster, targets: &[Target], objects: &mut Objects, gaps: &mut Vec<Gap>) {
    let unselected = targets.iter().filter(|t| {
        let own = objects.services.iter().find(|s| {
            let meta = &s.metadata;
            meta.name.as_deref() == Some(&t.service) && meta.namespace.as_deref() == Some(&t.namespace)
        });
        let sliced = || objects.endpoint_slices.iter().any(|s| endpoints::is_of(s, &t.namespace, &t.service));
        own.is_some_and(|s| service::selector(s).is_none_or(BTreeMap::is_empty)) && !sliced()
    });
    let each = unselected.map(|t| {
        get::<Endpoints>(cluster, Api::namespaced(cluster.client.clone(), &t.namespace), &t.service, "endpoints")
    });
    for found in join_all(each).await {
        keep(found.map(|e| e.into_iter().collect()), Input::Endpoints, gaps, &mut objects.endpoints);
    }
}

/// What one request for a log gave: its text, and whether the API server reaches the kubelet that keeps it.
pub type Log = Result<(Option<String>, Option<Probe>), Gap>;

/// The kubelet's port, as the API server names it where it cannot reach one.
const KUBELET_PORT: u16 = 10250;

/// The last lines of kube-proxy's log, each pod's: one that runs may be cut off all the same.
pub async fn logs(cluster: &Cluster, seen: &Snapshot) -> Vec<(String, Log)> {
    let nodes = &seen.objects.nodes;
    let api: Api<v1::Pod> = Api::namespaced(cluster.client.clone(), KUBE_SYSTEM);
    let one = |pod: &Pod| {
        let name = pod::name(pod).to_owned();
        let node_name = pod::node(pod).unwrap_or_default().to_owned();
        let restarted = pod
            .status
            .as_ref()
            .and_then(|s| s.container_statuses.as_ref())
            .is_some_and(|all| all.iter().any(|c| !c.ready && c.restart_count > 0));
        let api = api.clone();
        let limit = if node::is_silent(nodes, &node_name) { Duration::from_secs(1) } else { Duration::from_secs(3) };
        async move {
            let start = Instant::now();
            let text = tokio::time::timeout(limit, last_words(&api, &name, None, restarted)).await;
            let way = |outcome| Probe {
                vantage: Vantage::Kubelet,
                target: None,
                host: node_name.clone(),
                port: KUBELET_PORT,
                node: Some(node_name.clone()),
                pod: None,
                outcome,
                millis: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            };
            let log = match text {
                Ok(Ok(text)) => Ok((Some(text), Some(way(Outcome::Connected)))),
                // `Get "https://10.0.0.11:10250/containerLogs/…": dial tcp 10.0.0.11:10250: connect: …`
                Ok(Err(kube::Error::Api(status))) if status.message.contains(":10250") => {
                    Ok((None, Some(way(proxies::failure(&status.message)))))
                }
                Ok(Err(error)) => match reason(&error, "get", "pods/log") {
                    reason @ (GapReason::Denied { .. } | GapReason::Unauthorized) => {
                        Err(Gap { input: Input::Kubelet, subject: None, reason })
                    }
                    // No such run of the container: the kubelet has answered.
                    _ => Ok((None, None)),
                },
                Err(_) => Ok((None, Some(way(Outcome::Timeout)))),
            };
            (name, log)
        }
    };
    // More than this many nodes would make the look slow, and one log shows what all of them say.
    join_all(seen.objects.kube_proxy_pods.iter().take(8).map(one)).await
}

/// The last lines of a container's log: of the run that ended, else of this one. Between two runs the kubelet keeps the
/// ended one as this, and says in the place of the former's text that the runtime no longer has it.
async fn last_words(
    api: &Api<v1::Pod>,
    pod: &str,
    container: Option<String>,
    ended: bool,
) -> Result<String, kube::Error> {
    const GONE: &str = "unable to retrieve container logs";
    let params = LogParams { container, previous: ended, tail_lines: Some(20), ..LogParams::default() };
    match api.logs(pod, &params).await {
        Ok(text) if !(ended && text.starts_with(GONE)) => Ok(text),
        // It has not restarted yet.
        Err(kube::Error::Api(status)) if !(ended && status.code == 400) => Err(kube::Error::Api(status)),
        Ok(_) | Err(kube::Error::Api(_)) => api.logs(pod, &LogParams { previous: false, ..params }).await,
        Err(other) => Err(other),
    }
}

/// What the crashed containers of the targets said last: at most three pods of each, in their namespaces.
pub async fn crash_logs(cluster: &Cluster, snapshot: &Snapshot) -> (BTreeMap<String, String>, Vec<Gap>) {
    let mut wanted: Vec<(&str, &str, &str)> = Vec::new();
    let index = Index::of(snapshot);
    for target in &snapshot.targets {
        let Some(service) = ServiceFacts::derive(&index, target) else { continue };
        let crashed = service.live_pods().filter_map(|p| Some((p, pod::trouble(p)?)));
        let crashed = crashed.filter(|(_, t)| t.kind == TroubleKind::Crash);
        wanted.extend(crashed.take(3).map(|(p, t)| (target.namespace.as_str(), pod::name(p), t.container)));
    }
    let one = |(namespace, name, container): (&'_ str, &'_ str, &'_ str)| {
        let api: Api<v1::Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let (namespace, key) = (namespace.to_owned(), format!("{namespace}/{name}"));
        let (name, container) = (name.to_owned(), container.to_owned());
        async move {
            let asked = last_words(&api, &name, Some(container), true);
            let reason = match tokio::time::timeout(Duration::from_secs(3), asked).await {
                Ok(Ok(text)) => return Ok((key, text)),
                Ok(Err(error)) => reason(&error, "get", "pods/log"),
                Err(_) => GapReason::Timeout,
            };
            Err(Gap { input: Input::PodLogs, subject: Some(namespace), reason })
        }
    };
    let (mut found, mut gaps) = (BTreeMap::new(), Vec::new());
    for result in join_all(wanted.into_iter().map(one)).await {
        match result {
            Ok((key, text)) => drop(found.insert(key, text)),
            Err(gap) => gaps.push(gap),
        }
    }
    (found, gaps)
}

/// The revisions of the targets' Deployments whose pods do not come up. Without the right to see them a rollout is only
/// not taken back, which is no Gap: no check reads them.
pub async fn revisions(cluster: &Cluster, snapshot: &Snapshot) -> Vec<ReplicaSet> {
    let index = Index::of(snapshot);
    let failing = snapshot.targets.iter().filter(|target| {
        let service = ServiceFacts::derive(&index, target);
        service.is_some_and(|s| s.deployment_matches && s.live_pods().any(|p| pod::trouble(p).is_some()))
    });
    let homes: std::collections::BTreeSet<&str> = failing.map(|t| t.namespace.as_str()).collect();
    let each = homes.into_iter().map(|home| async move {
        let api = Api::namespaced(cluster.client.clone(), home);
        list::<ReplicaSet>(cluster, api, &ListParams::default(), "replicasets").await.unwrap_or_default()
    });
    join_all(each).await.into_iter().flatten().collect()
}

/// Puts what was found into its place, or the reason among the gaps.
fn keep<K>(result: Result<Vec<K>, GapReason>, input: Input, gaps: &mut Vec<Gap>, into: &mut Vec<K>) {
    match result {
        Ok(found) => into.extend(found),
        Err(reason) => gaps.push(Gap { input, subject: None, reason }),
    }
}
