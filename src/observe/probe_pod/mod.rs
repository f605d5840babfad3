//! Probes from inside the cluster, where the user allows it: a short-lived pod on the node that is dialled, from an image
//! that lies there already, asks the page's pods. It shows from afar what otherwise only root on that node sees.

mod script;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use self::script::Dial;
use super::client::Cluster;
use super::objects::reason;
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Gap, GapReason, Input, Probe, Snapshot, Vantage};

/// From its creation to its end; a container starts within a second, and each dial is limited.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The kubelet ends it even if nobody is left to delete it.
const DEADLINE_SECONDS: i64 = 30;
/// At most so many images are tried, and pods of a target asked.
const MOST: usize = 3;
const NAME: &str = "bookaccess-probe-";
const LABEL: &str = "app.kubernetes.io/managed-by";
const OWN: &str = "kubectl-bookaccess";
/// Parts of image names that have a shell and a program to dial with, as a rule.
const LIKELY: [&str; 9] =
    ["python", "productpage", "curl", "netshoot", "busybox", "alpine", "nginx", "httpd", "debian"];
/// What the kubelet says where an image has no shell, or is not there after all.
const UNFIT: [&str; 5] =
    ["StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError", "ErrImageNeverPull"];

/// Why nothing is asked any more after Ctrl-C.
const INTERRUPTED: &str = "interrupted";

/// What is to be asked, worked out beforehand: the pod shall live as short as it can.
struct Errand {
    target: String,
    namespace: String,
    marker: Option<String>,
    node: String,
    images: Vec<String>,
    owner: serde_json::Value,
    dials: Vec<(Dial, String, Option<String>)>,
}

/// Asks the pods of each target that does not answer, from the node that is dialled; what came of it, or why nothing
/// did, goes into the Snapshot. Every pod that is made is deleted, also after Ctrl-C.
pub async fn look(cluster: &Cluster, snapshot: &mut Snapshot) {
    let errands: Vec<Result<Errand, Gap>> = {
        let facts = Facts::derive(snapshot);
        let broken = facts.targets.iter().filter(|t| t.reach.answers == Some(false));
        broken.take(MOST).map(|target| errand(&facts, target)).collect()
    };
    for errand in errands {
        match errand {
            Ok(errand) => match run(cluster, &errand).await {
                Ok(probes) => snapshot.probes.extend(probes),
                Err(reason) => {
                    let over = is_interrupt(&reason);
                    snapshot.gaps.push(Gap { input: Input::ProbePod, subject: Some(errand.target), reason });
                    if over {
                        return;
                    }
                }
            },
            Err(gap) => snapshot.gaps.push(gap),
        }
    }
}

fn errand(facts: &Facts<'_>, target: &TargetFacts<'_>) -> Result<Errand, Gap> {
    let none =
        || Gap { input: Input::ProbePod, subject: Some(target.target.to_string()), reason: GapReason::NothingThere };
    let service = target.service.as_ref().ok_or_else(none)?;
    let from = target.reach.node.and_then(|name| facts.node(name)).ok_or_else(none)?;
    let usable = service.usable().filter(|e| e.pod.is_some()).take(MOST);
    let dials = usable.filter_map(|e| {
        let dial = Dial { ip: e.ip, port: e.port?, path: target.target.path.clone() };
        Some((dial, e.pod?.to_owned(), e.node.map(str::to_owned)))
    });
    let dials: Vec<_> = dials.collect();
    let images = images(node::images(from));
    if dials.is_empty() || images.is_empty() {
        return Err(none());
    }
    let meta = &service.service.metadata;
    Ok(Errand {
        target: target.target.to_string(),
        namespace: target.target.namespace.clone(),
        marker: target.target.marker.clone(),
        node: node::name(from).to_owned(),
        images,
        owner: json!([{"apiVersion": "v1", "kind": "Service", "name": meta.name, "uid": meta.uid}]),
        dials,
    })
}

/// Images of the node, those first that are likely to hold what is needed.
fn images<'n>(on_node: impl Iterator<Item = &'n str>) -> Vec<String> {
    let rank = |image: &&str| LIKELY.iter().position(|part| image.contains(part)).unwrap_or(LIKELY.len());
    let mut all: Vec<&str> = on_node.filter(|image| !image.contains("/pause:")).collect();
    all.sort_by_key(rank);
    all.into_iter().take(MOST).map(str::to_owned).collect()
}

async fn run(cluster: &Cluster, errand: &Errand) -> Result<Vec<Probe>, GapReason> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &errand.namespace);
    // Of a command that was killed: they have ended by their deadline.
    let old = ListParams::default().labels(&format!("{LABEL}={OWN}")).fields("status.phase=Failed");
    let _ = api.delete_collection(&DeleteParams::default(), &old).await;
    let mut last = GapReason::NothingThere;
    for image in &errand.images {
        // In the node's network where the namespace admits it, else in one of its own: the way leads by the same node.
        for in_node in [true, false] {
            match once(&api, errand, image, in_node).await {
                Err(GapReason::Failed { message }) if in_node && message.contains("PodSecurity") => {}
                Err(reason @ (GapReason::Denied { .. } | GapReason::Unauthorized | GapReason::Timeout)) => {
                    return Err(reason);
                }
                Err(reason) if is_interrupt(&reason) => return Err(reason),
                Err(reason) => {
                    last = reason;
                    break;
                }
                Ok(probes) => return Ok(probes),
            }
        }
    }
    Err(last)
}

async fn once(api: &Api<Pod>, errand: &Errand, image: &str, in_node: bool) -> Result<Vec<Probe>, GapReason> {
    let dials: Vec<Dial> = errand.dials.iter().map(|(dial, ..)| dial.clone()).collect();
    let pod = manifest(errand, image, in_node, &script::command(&dials));
    let made = api.create(&PostParams::default(), &pod).await.map_err(|error| refused(&error))?;
    let name = made.name_any();
    let said = tokio::select! {
        said = tokio::time::timeout(LIMIT, said(api, &name)) => said.unwrap_or(Err(GapReason::Timeout)),
        _ = tokio::signal::ctrl_c() => Err(GapReason::Failed { message: INTERRUPTED.to_owned() }),
    };
    let deleted = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
    if let Err(error) = deleted {
        tracing::warn!(pod = name, %error, "the probe pod is not deleted; it ends by itself");
    }
    let text = said?;
    if script::is_unable(&text) {
        return Err(GapReason::Failed { message: format!("{image} holds no program to dial with") });
    }
    let outcomes = script::read(&text, errand.marker.as_deref());
    let probes = errand.dials.iter().zip(outcomes).map(|((dial, pod, node), (outcome, took))| Probe {
        vantage: Vantage::ProbePod,
        target: Some(errand.target.clone()),
        host: dial.ip.to_string(),
        port: dial.port,
        node: node.clone(),
        pod: Some(pod.clone()),
        outcome,
        millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    Ok(probes.collect())
}

fn is_interrupt(reason: &GapReason) -> bool {
    matches!(reason, GapReason::Failed { message } if message == INTERRUPTED)
}

/// Admission refuses by 403 as well, in words of its own.
fn refused(error: &kube::Error) -> GapReason {
    match error {
        kube::Error::Api(status) if status.message.contains("violates PodSecurity") => {
            GapReason::Failed { message: status.message.clone() }
        }
        other => reason(other, "create", "pods"),
    }
}

/// Waits for the pod's end, and gives what it said.
async fn said(api: &Api<Pod>, name: &str) -> Result<String, GapReason> {
    loop {
        let pod = api.get(name).await.map_err(|error| reason(&error, "get", "pods"))?;
        let status = pod.status.unwrap_or_default();
        let state = status.container_statuses.as_deref().and_then(|all| all.first()?.state.clone()).unwrap_or_default();
        let waits = state.waiting.and_then(|w| Some((w.reason?, w.message.unwrap_or_default())));
        let ended = state.terminated.map(|t| (t.reason.unwrap_or_default(), t.message.unwrap_or_default()));
        if let Some((why, message)) = waits.into_iter().chain(ended).find(|(why, _)| UNFIT.contains(&why.as_str())) {
            return Err(GapReason::Failed { message: format!("{why}: {message}") });
        }
        match status.phase.as_deref() {
            // Whatever the last program's exit code.
            Some("Succeeded") => break,
            Some("Failed") if status.reason.is_none() => break,
            Some("Failed") => {
                let message = status.reason.into_iter().chain(status.message).collect::<Vec<_>>().join(": ");
                return Err(GapReason::Failed { message });
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    let params = LogParams { limit_bytes: Some(1 << 20), ..LogParams::default() };
    api.logs(name, &params).await.map_err(|error| reason(&error, "get", "pods/log"))
}

fn manifest(errand: &Errand, image: &str, in_node: bool, command: &[String]) -> Pod {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": NAME, "namespace": errand.namespace, "labels": {LABEL: OWN},
            "ownerReferences": errand.owner,
        },
        "spec": {
            "nodeName": errand.node, "hostNetwork": in_node, "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE_SECONDS, "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "probe", "image": image, "imagePullPolicy": "Never", "command": command,
                "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65_534, "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        },
    });
    serde_json::from_value(pod).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_can_dial_is_tried_first() {
        let on_node =
            ["k8s/pause:3.10", "k8s/etcd:3.6", "docker.io/istio/examples-bookinfo-productpage-v1:1.20", "a/b:1"];
        let expected = ["docker.io/istio/examples-bookinfo-productpage-v1:1.20", "k8s/etcd:3.6", "a/b:1"];
        assert_eq!(images(on_node.into_iter()), expected);
    }

    #[test]
    fn the_pod_asks_for_nothing() {
        let errand = Errand {
            target: "bookinfo/productpage".to_owned(),
            namespace: "bookinfo".to_owned(),
            marker: None,
            node: "cp1".to_owned(),
            images: Vec::new(),
            owner: json!([{"apiVersion": "v1", "kind": "Service", "name": "productpage", "uid": "u"}]),
            dials: Vec::new(),
        };
        let pod = manifest(&errand, "busybox:1", true, &["sh".to_owned()]);
        let spec = pod.spec.as_ref();
        assert_eq!(spec.and_then(|s| s.node_name.as_deref()), Some("cp1"));
        assert_eq!(spec.and_then(|s| s.automount_service_account_token), Some(false));
        assert_eq!(spec.and_then(|s| s.containers.first()?.image_pull_policy.as_deref()), Some("Never"));
        assert_eq!(pod.metadata.owner_references.map(|o| o.len()), Some(1));
    }
}
