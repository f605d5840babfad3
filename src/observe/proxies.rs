//! Probes through the API server: its proxies to pods and nodes, and port-forward.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use kube::client::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Cluster, innermost};
use super::dial;
use super::objects::KUBE_SYSTEM;
use crate::facts::proxy;
use crate::model::{GapReason, Outcome, Target};

/// The API server waits some 30 s for a dead backend; we wait as long for its dial as for one of our own.
const LIMIT: Duration = super::probes::DIAL_LIMIT;

/// GET through `pods/NAME:PORT/proxy`.
pub async fn pod(cluster: &Cluster, target: &Target, pod: &str, port: u16) -> Result<(Outcome, Duration), GapReason> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{}", target.namespace, target.path);
    get(cluster, &path, target.marker.as_deref(), "pods/proxy").await
}

/// GET of kube-proxy's own health check through `pods/NAME:PORT/proxy`: its pods live in the node's network.
pub async fn kube_proxy(cluster: &Cluster, pod: &str) -> Result<(Outcome, Duration), GapReason> {
    let path = format!("/api/v1/namespaces/{KUBE_SYSTEM}/pods/{pod}:{}/proxy/healthz", proxy::HEALTH_PORT);
    get(cluster, &path, None, "pods/proxy").await
}

/// GET through `nodes/NAME:PORT/proxy`.
pub async fn node(cluster: &Cluster, target: &Target, node: &str, port: u16) -> Result<(Outcome, Duration), GapReason> {
    let path = format!("/api/v1/nodes/{node}:{port}/proxy{}", target.path);
    get(cluster, &path, target.marker.as_deref(), "nodes/proxy").await
}

async fn get(
    cluster: &Cluster,
    path: &str,
    marker: Option<&str>,
    resource: &str,
) -> Result<(Outcome, Duration), GapReason> {
    let start = Instant::now();
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, "text/html, */*")
        .body(Body::empty())
        .map_err(|error| GapReason::Failed { message: error.to_string() })?;
    let exchange = async {
        let response = cluster.client.send(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect_bytes().await?;
        Ok::<_, kube::Error>((status, body))
    };
    let (status, body) = match tokio::time::timeout(LIMIT, exchange).await {
        Err(_) => return Ok((Outcome::Timeout, start.elapsed())),
        Ok(Err(error)) => return Err(GapReason::Failed { message: innermost(&error) }),
        Ok(Ok(answer)) => answer,
    };
    // A Status is the API server's own word, anything else the application's.
    let outcome = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(own)
            if own.get("kind").is_some_and(|k| k == "Status") && own.get("apiVersion").is_some_and(|v| v == "v1") =>
        {
            let message = own.get("message").and_then(|m| m.as_str()).unwrap_or_default();
            match status {
                401 => return Err(GapReason::Unauthorized),
                403 => return Err(GapReason::Denied { verb: "get".to_owned(), resource: resource.to_owned() }),
                _ => failure(message),
            }
        }
        _ if dial::wants_tls(status, &body) => Outcome::Tls,
        _ => {
            let right = marker.is_none_or(|m| body.windows(m.len()).any(|w| w == m.as_bytes()));
            Outcome::Http { status, right }
        }
    };
    Ok((outcome, start.elapsed()))
}

/// The class of a dial that failed inside the API server or the container runtime, from Go's wording.
pub(super) fn failure(message: &str) -> Outcome {
    let has = |words: &str| message.contains(words);
    if has("connection refused") {
        Outcome::Refused
    } else if has("no route to host") || has("connect: invalid argument") {
        // The latter where a blackhole route leads there.
        Outcome::NoRoute
    } else if has("network is unreachable") {
        Outcome::NetworkUnreachable
    } else if has("i/o timeout") || has("deadline exceeded") || has("Client.Timeout") || has("Timeout exceeded") {
        Outcome::Timeout
    } else if has("connection reset") {
        Outcome::Reset
    } else if has("malformed HTTP response \"\\x15\\x03") {
        Outcome::Tls
    } else if has("EOF") {
        Outcome::Empty
    } else {
        Outcome::Other { message: message.to_owned() }
    }
}

/// GET through port-forward, which dials localhost inside the pod.
pub async fn port_forward(
    cluster: &Cluster,
    target: &Target,
    pod: &str,
    port: u16,
) -> Result<(Outcome, Duration), GapReason> {
    let pod = Inside { namespace: &target.namespace, pod, port };
    // A page that takes its time says no more than one that is not reached.
    pod.get(cluster, &target.path, target.marker.as_deref(), Outcome::Timeout).await
}

/// GET of kube-proxy's health on its node's own loopback, which port-forward reaches through its pod: no network between
/// nodes is in the answer. [`Outcome::Silent`]: the kubelet is there, and who listens says nothing. The word is looked for
/// because the end of a port-forward comes a second late.
pub async fn kube_proxy_inside(cluster: &Cluster, pod: &str) -> Result<(Outcome, Duration), GapReason> {
    let pod = Inside { namespace: KUBE_SYSTEM, pod, port: proxy::METRICS_PORT };
    pod.get(cluster, "/healthz", Some("ok"), Outcome::Silent).await
}

/// A port of a pod, dialled by the kubelet in the pod's own network.
struct Inside<'a> {
    namespace: &'a str,
    pod: &'a str,
    port: u16,
}

impl Inside<'_> {
    /// What a GET brings; `silence` where the kubelet has led us in and no answer comes.
    async fn get(
        &self,
        cluster: &Cluster,
        path: &str,
        marker: Option<&str>,
        silence: Outcome,
    ) -> Result<(Outcome, Duration), GapReason> {
        let start = Instant::now();
        let Ok(opened) = tokio::time::timeout(LIMIT, self.open(cluster)).await else {
            return Ok((Outcome::Timeout, start.elapsed()));
        };
        let asked = self.ask(opened?, path, marker);
        let outcome = match tokio::time::timeout(LIMIT.saturating_sub(start.elapsed()), asked).await {
            Ok(outcome) => outcome?,
            Err(_) => silence,
        };
        Ok((outcome, start.elapsed()))
    }

    async fn open(&self, cluster: &Cluster) -> Result<Portforwarder, GapReason> {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), self.namespace);
        let opened = pods.portforward(self.pod, &[self.port]).await;
        opened.map_err(|error| super::objects::reason(&error, "create", "pods/portforward"))
    }

    async fn ask(&self, mut forwarder: Portforwarder, path: &str, marker: Option<&str>) -> Result<Outcome, GapReason> {
        let (Some(mut stream), Some(error)) = (forwarder.take_stream(self.port), forwarder.take_error(self.port))
        else {
            return Err(GapReason::Failed { message: "no stream for the port".to_owned() });
        };
        let head = dial::head(path, "localhost");
        let talk = async {
            let mut answer = Vec::new();
            let _ = stream.write_all(head.as_bytes()).await;
            let mut buffer = [0; 16 * 1024];
            while let Ok(n) = stream.read(&mut buffer).await {
                answer.extend_from_slice(&buffer[..n]);
                if n == 0 || dial::judge(&answer, marker).is_right() && marker.is_some() {
                    break;
                }
            }
            answer
        };
        tokio::pin!(talk);
        let mut error = Box::pin(error);
        // The runtime's word on a failed dial arrives on the error channel, at times after the stream has ended.
        let answer = tokio::select! {
            answer = &mut talk => answer,
            Some(message) = &mut error => return Ok(failure(&message)),
        };
        if answer.is_empty() {
            return Ok(match tokio::time::timeout(Duration::from_millis(500), error).await {
                Ok(Some(message)) => failure(&message),
                _ => Outcome::Empty,
            });
        }
        Ok(dial::judge(&answer, marker))
    }
}
