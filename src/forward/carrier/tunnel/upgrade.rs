//! The ladder of ways to upgrade a request to port-forward: raw SPDY, SPDY in WebSocket messages, and last kube's own
//! client of v4.channel.k8s.io.

use std::io::{Error, ErrorKind};

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::said;
use super::wire::Wire;
use crate::observe::client::innermost;

/// The stream protocol inside SPDY (kubelet's `PortForwardProtocolV1Name`).
const PORT_FORWARD: &str = "portforward.k8s.io";
/// SPDY inside a WebSocket (KEP-4006).
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// A way to upgrade, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Rung {
    /// POST with `Upgrade: SPDY/3.1`: the API server passes the bytes on as they are.
    #[serde(rename = "spdy")]
    Spdy,
    /// GET with `Upgrade: websocket`: passes proxies that know no SPDY; the API server frames anew.
    #[serde(rename = "spdy-in-websocket")]
    WebSocket,
    /// One WebSocket a connection; kube's own client. Also for servers before 1.30 behind such proxies.
    #[serde(rename = "v4.channel")]
    Channel,
}

impl Rung {
    /// All of them, best first.
    pub const ALL: [Rung; 3] = [Rung::Spdy, Rung::WebSocket, Rung::Channel];

    /// As status and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Rung::Spdy => "spdy",
            Rung::WebSocket => "spdy-in-websocket",
            Rung::Channel => "v4.channel",
        }
    }

    /// From its number.
    pub fn of(number: u8) -> Self {
        match number {
            0 => Rung::Spdy,
            1 => Rung::WebSocket,
            _ => Rung::Channel,
        }
    }

    /// The one below.
    pub fn below(self) -> Self {
        Self::of(self as u8 + 1)
    }
}

/// Why an upgrade failed.
#[derive(Debug)]
pub enum Refused {
    /// The API server answered otherwise.
    Status { code: u16, message: String },
    /// It did not answer.
    Lost(String),
}

impl Refused {
    /// Whether another rung may do better.
    pub fn is_about_the_way(&self) -> bool {
        match self {
            Refused::Status { code, message } => *code != 401 && !said::no_such_pod(*code, message),
            Refused::Lost(_) => false,
        }
    }

    /// For the one who asked for a connection.
    pub fn error(&self, namespace: &str) -> Error {
        match self {
            Refused::Lost(message) => Error::new(ErrorKind::NotConnected, message.clone()),
            Refused::Status { code, message } if said::no_such_pod(*code, message) => {
                Error::new(ErrorKind::NotFound, message.clone())
            }
            Refused::Status { code: 401, message } => {
                Error::new(ErrorKind::PermissionDenied, format!("the API server refuses the credentials: {message}"))
            }
            Refused::Status { code: 403, message } => Error::new(
                ErrorKind::PermissionDenied,
                format!("no right to create pods/portforward in namespace {namespace}: {message}"),
            ),
            Refused::Status { code, message } => {
                Error::other(format!("the API server refuses the port-forward: {code} {message}"))
            }
        }
    }
}

/// Upgrades by one of the first two rungs.
///
/// # Errors
/// See [`Refused`].
pub async fn upgrade(client: &Client, namespace: &str, pod: &str, rung: Rung) -> Result<Wire, Refused> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/portforward");
    let key = generate_key();
    let request = match rung {
        Rung::Spdy => Request::builder()
            .method(Method::POST)
            .header(UPGRADE, "SPDY/3.1")
            .header("X-Stream-Protocol-Version", PORT_FORWARD),
        Rung::WebSocket | Rung::Channel => Request::builder()
            .method(Method::GET)
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .header(SEC_WEBSOCKET_PROTOCOL, TUNNELLED),
    };
    let request = request
        .uri(path)
        .header(CONNECTION, "Upgrade")
        .body(Body::empty())
        .map_err(|error| Refused::Lost(error.to_string()))?;
    let response = client.send(request).await.map_err(|error| Refused::Lost(innermost(&error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await.unwrap_or_default();
        return Err(Refused::Status { code, message: message(&body) });
    }
    if !agrees(response.headers(), rung, &key) {
        let message = "switches to a protocol nobody asked for".to_owned();
        return Err(Refused::Status { code: 101, message });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| Refused::Lost(innermost(&error)))?;
    Wire::new(upgraded).map_err(|error| Refused::Lost(error.to_string()))
}

fn agrees(headers: &HeaderMap, rung: Rung, key: &str) -> bool {
    let is = |name: &http::HeaderName, wanted: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case(wanted))
    };
    match rung {
        Rung::Spdy => is(&UPGRADE, "SPDY/3.1"),
        Rung::WebSocket | Rung::Channel => {
            is(&UPGRADE, "websocket")
                && is(&SEC_WEBSOCKET_PROTOCOL, TUNNELLED)
                && is(&SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        }
    }
}

/// The message of a `Status`, or the text as it is, one line of it.
fn message(body: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let told = status.as_ref().and_then(|s| s["message"].as_str());
    let text = told.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_the_next_rung_is_worth_a_try() {
        let status = |code, message: &str| Refused::Status { code, message: message.to_owned() };
        assert!(status(400, "Upgrade request required").is_about_the_way());
        assert!(status(403, "forbidden").is_about_the_way(), "GET may be allowed where POST is not");
        assert!(status(502, "<html>").is_about_the_way());
        assert!(!status(401, "Unauthorized").is_about_the_way());
        assert!(!status(404, "pods \"a\" not found").is_about_the_way());
        assert!(!Refused::Lost("connection refused".to_owned()).is_about_the_way());
    }

    #[test]
    fn a_missing_right_is_named_with_its_verb() {
        let error = Refused::Status { code: 403, message: "pods \"a\" is forbidden".to_owned() }.error("bookinfo");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("create pods/portforward in namespace bookinfo"));
    }

    #[test]
    fn the_message_is_that_of_the_status() {
        assert_eq!(message(br#"{"kind":"Status","message":"pods \"a\" not found"}"#), "pods \"a\" not found");
        assert_eq!(message(b"pod not found (\"a_b\")\nmore"), "pod not found (\"a_b\")");
        assert_eq!(message(b""), "");
    }
}
