//! Policies that are no NetworkPolicies: Cilium's and Calico's own, and those of Gatekeeper and Kyverno that speak of nodePorts.

use futures::future::join_all;
use kube::client::Body;
use serde_json::{Value, json};

use super::client::{Cluster, innermost};
use super::objects::limit;
use crate::model::GapReason;

/// Where the kinds lie: API group, resource below it, whether it lies in namespaces.
const KINDS: [(&str, &str, &str, bool); 6] = [
    ("cilium.io", "v2/ciliumnetworkpolicies", "CiliumNetworkPolicy", true),
    ("cilium.io", "v2/ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", false),
    ("crd.projectcalico.org", "v1/networkpolicies", "CalicoNetworkPolicy", true),
    ("crd.projectcalico.org", "v1/globalnetworkpolicies", "CalicoGlobalNetworkPolicy", false),
    ("constraints.gatekeeper.sh", "v1beta1/k8sblocknodeport", "K8sBlockNodePort", false),
    ("kyverno.io", "v1/clusterpolicies", "ClusterPolicy", false),
];

/// Of the groups that the cluster has, the policies that may concern these namespaces.
///
/// # Errors
/// Why they could not be had, wholly or in part.
pub async fn list(cluster: &Cluster, namespaces: &[String]) -> Result<Vec<Value>, GapReason> {
    let groups = get(cluster, "/apis").await?;
    let groups = groups.get("groups").and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |name: &str| groups.iter().any(|g| g.get("name").and_then(Value::as_str) == Some(name));
    let mut wanted = Vec::new();
    for (group, resource, kind, namespaced) in KINDS.into_iter().filter(|(group, ..)| has(group)) {
        let Some((version, plural)) = resource.split_once('/') else { continue };
        if namespaced {
            let of = |ns: &String| (format!("/apis/{group}/{version}/namespaces/{ns}/{plural}"), kind);
            wanted.extend(namespaces.iter().map(of));
        } else {
            wanted.push((format!("/apis/{group}/{version}/{plural}"), kind));
        }
    }
    let asked = wanted.into_iter().map(|(path, kind)| async move { (kind, get(cluster, &path).await) });
    let mut found = Vec::new();
    for (kind, answer) in join_all(asked).await {
        let items = answer?.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        found.extend(items.iter().map(|item| kept(kind, item)).filter(|p| kind != "ClusterPolicy" || of_ports(p)));
    }
    Ok(found)
}

/// Kind, name and spec: nothing else is read, or kept in a file.
fn kept(kind: &str, item: &Value) -> Value {
    let name = |key: &str| item.pointer(&format!("/metadata/{key}")).cloned().unwrap_or_default();
    json!({
        "kind": kind,
        "metadata": {"name": name("name"), "namespace": name("namespace")},
        "spec": item.get("spec").cloned().unwrap_or_default(),
        "specs": item.get("specs").cloned().unwrap_or_default(),
    })
}

fn of_ports(policy: &Value) -> bool {
    policy.get("spec").is_some_and(|spec| spec.to_string().contains("NodePort"))
}

/// The answer to a GET; an empty one where nothing of that kind is there.
async fn get(cluster: &Cluster, path: &str) -> Result<Value, GapReason> {
    let failed = |message: String| GapReason::Failed { message };
    let request = http::Request::get(path).body(Body::empty()).map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let response = cluster.client.send(request).await?;
        let status = response.status().as_u16();
        Ok::<_, kube::Error>((status, response.into_body().collect_bytes().await?))
    };
    match tokio::time::timeout(limit(cluster), exchange).await {
        Err(_) => Err(GapReason::Timeout),
        Ok(Err(error)) => Err(failed(innermost(&error))),
        Ok(Ok((200, body))) => serde_json::from_slice(&body).map_err(|error| failed(error.to_string())),
        Ok(Ok((401, _))) => Err(GapReason::Unauthorized),
        Ok(Ok((403, _))) => {
            let resource = path.rsplit('/').next().unwrap_or_default().to_owned();
            Err(GapReason::Denied { verb: "list".to_owned(), resource })
        }
        Ok(Ok((404, _))) => Ok(Value::Null),
        Ok(Ok((status, _))) => Err(failed(format!("HTTP {status}: {path}"))),
    }
}
