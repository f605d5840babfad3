//! A Service edited into something that does not lead to the page.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::app::{NAMESPACE, PORT};
use crate::cluster::Cluster;
use crate::faults::Fault;

/// The page's.
const SERVICE: &str = "service/productpage";

/// The selector names a label that no pod has.
pub fn selector_typo() -> Fault {
    edited("the selector has a typo", json!([{"op": "replace", "path": "/spec/selector/app", "value": "productpag"}]))
}

/// The targetPort is one that nothing listens on.
pub fn target_port_wrong() -> Fault {
    edited("the targetPort is wrong", json!([{"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9999}]))
}

/// Only endpoints of the dialled node count.
pub fn local_only() -> Fault {
    edited(
        "externalTrafficPolicy is Local",
        json!([{"op": "replace", "path": "/spec/externalTrafficPolicy", "value": "Local"}]),
    )
}

pub fn other_node_port() -> Fault {
    edited("the nodePort is another", json!([{"op": "replace", "path": "/spec/ports/0/nodePort", "value": 30081}]))
}

pub fn target_port_name_unknown() -> Fault {
    edited(
        "the targetPort names no port",
        json!([{"op": "replace", "path": "/spec/ports/0/targetPort", "value": "htttp"}]),
    )
}

pub fn protocol_udp() -> Fault {
    edited("the protocol is UDP", json!([{"op": "replace", "path": "/spec/ports/0/protocol", "value": "UDP"}]))
}

/// Two ports, and the one that nothing listens on has the nodePort that is dialled.
pub fn other_port_first() -> Fault {
    let ports = json!([
        {"name": "admin", "port": 9999, "targetPort": 9999, "nodePort": 30080},
        {"name": "http", "port": 9080, "targetPort": 9080, "nodePort": 30081},
    ]);
    edited("the nodePort belongs to another port", json!([{"op": "replace", "path": "/spec/ports", "value": ports}]))
}

/// The selector takes in every application of the namespace.
pub fn selector_too_wide() -> Fault {
    edited("the selector is too wide", json!([{"op": "replace", "path": "/spec/selector", "value": {"version": "v1"}}]))
}

/// kube-proxy leaves a Service with this label to somebody else.
pub fn service_proxy_name() -> Fault {
    let label = "/metadata/labels/service.kubernetes.io~1service-proxy-name";
    edited("another service proxy is named", json!([{"op": "add", "path": label, "value": "other"}]))
}

/// A client stays with the pod that it was led to first.
pub fn session_affinity() -> Fault {
    edited(
        "sessionAffinity is ClientIP",
        json!([{"op": "replace", "path": "/spec/sessionAffinity", "value": "ClientIP"}]),
    )
}

pub fn deleted() -> Fault {
    let delete = |cluster: &Cluster| cluster.kubectl(&["delete", "-n", NAMESPACE, SERVICE]).map(drop);
    Fault::new("the Service is deleted", delete, |_: &Cluster| Ok(()))
}

/// The Service is made anew, as somebody else would have made it.
pub fn made_anew(name: &str, spec: Value) -> Fault {
    replaced(name, move |cluster| cluster.apply(&service("productpage", &spec)))
}

/// Somebody wrote the endpoints by hand, and told the controllers not to mirror them.
pub fn endpoints_by_hand() -> Fault {
    replaced("Endpoints by hand are not mirrored", |cluster| {
        let pods = cluster.get(&["-n", NAMESPACE, "pods", "-l", "app=productpage"])?;
        let address = &pods["items"][0]["status"]["podIP"];
        let ports = json!([{"port": 9080, "targetPort": 9080, "nodePort": PORT}]);
        cluster.apply(&service("productpage", &json!({"type": "NodePort", "ports": ports})))?;
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "productpage", "namespace": NAMESPACE,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 9080}]}],
        });
        cluster.apply(&endpoints.to_string())
    })
}

/// Another Service has the nodePort.
pub fn node_port_taken() -> Fault {
    let take = |cluster: &Cluster| {
        let ports = json!([{"port": 80, "nodePort": PORT}]);
        cluster
            .apply(&service("first-come", &json!({"type": "NodePort", "selector": {"app": "nobody"}, "ports": ports})))
    };
    let give_back = |cluster: &Cluster| {
        cluster.kubectl(&["delete", "-n", NAMESPACE, "service", "first-come", "--ignore-not-found"]).map(drop)
    };
    Fault::new("another Service has the nodePort", take, give_back)
}

fn replaced(name: &str, make: impl Fn(&Cluster) -> Result<()> + Send + Sync + 'static) -> Fault {
    Fault::new(
        name,
        move |cluster| {
            cluster.kubectl(&["delete", "-n", NAMESPACE, SERVICE])?;
            make(cluster)
        },
        // It is gone with its namespace's content before the next scenario.
        |_: &Cluster| Ok(()),
    )
}

fn service(name: &str, spec: &Value) -> String {
    let meta = json!({"name": name, "namespace": NAMESPACE});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}).to_string()
}

/// An edit of the page's Service, undone by putting its former spec back.
fn edited(name: &str, patch: Value) -> Fault {
    let former: Arc<Mutex<Option<Value>>> = Arc::default();
    let kept = Arc::clone(&former);
    Fault::new(
        name,
        move |cluster| {
            let service = cluster.get(&["-n", NAMESPACE, SERVICE])?;
            *kept.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(service["spec"].clone());
            cluster.json_patch(NAMESPACE, SERVICE, &patch)
        },
        move |cluster| put_back(cluster, &former),
    )
}

fn put_back(cluster: &Cluster, former: &Mutex<Option<Value>>) -> Result<()> {
    let spec = former.lock().ok().and_then(|mut kept| kept.take()).context("healed before injected")?;
    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]);
    cluster.json_patch(NAMESPACE, SERVICE, &patch)
}
