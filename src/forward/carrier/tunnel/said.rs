//! What the API server, the kubelet and the container runtime say when a tunnel or a port does not open, and what it
//! means. Texts as seen with containerd 1.6 and 2.x and as read in CRI-O.

use std::io::{Error, ErrorKind};

/// The runtime's words where the pod's sandbox, and so its network, is no more.
const NO_SANDBOX: [&str; 4] =
    ["failed to find sandbox", "network namespace for sandbox", "is not running", "failed to find network namespace"];

/// Its words where nothing of the connection reached the application.
const NOT_DIALLED: [&str; 4] = ["connection refused", "failed to connect to localhost", "not found", "dial tcp"];

/// Whether the text means that the whole pod is gone, with all tunnels into it.
pub fn pod_is_gone(text: &str) -> bool {
    NO_SANDBOX.iter().any(|words| text.contains(words))
}

/// The error stream's text as the error of the connection: refused where nothing reached the application and another
/// pod may take it, reset where it broke on the way.
pub fn on_error_stream(text: &str) -> Error {
    let broke = text.contains("reset by peer") || text.contains("broken pipe");
    let refused = !broke && (pod_is_gone(text) || NOT_DIALLED.iter().any(|words| text.contains(words)));
    let kind = if refused { ErrorKind::ConnectionRefused } else { ErrorKind::ConnectionReset };
    Error::new(kind, text.trim().to_owned())
}

/// Whether an answer to the upgrade says that the pod is not there or not ready to be forwarded to.
pub fn no_such_pod(code: u16, text: &str) -> bool {
    match code {
        404 => text.contains("pods \"") && text.contains("not found"),
        400 => text.contains("does not have a host assigned"),
        500 => text.contains("pod not found") || pod_is_gone(text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_dial_is_told_from_a_broken_connection() {
        let refused = "error forwarding port 9999 to pod ID, uid : failed to execute portforward in network namespace \
                       \"x\": failed to connect to localhost:9999 inside namespace \"ID\", IPv4: dial tcp4 \
                       127.0.0.1:9999: connect: connection refused IPv6 dial tcp6: address localhost: no suitable \
                       address found ";
        assert_eq!(on_error_stream(refused).kind(), ErrorKind::ConnectionRefused);
        assert!(!pod_is_gone(refused));
        for broke in ["read: connection reset by peer", "write: broken pipe", "timed out waiting for streams"] {
            assert_eq!(on_error_stream(broke).kind(), ErrorKind::ConnectionReset, "{broke}");
        }
    }

    #[test]
    fn a_gone_pod_is_known_by_its_sandbox() {
        for gone in [
            "failed to find sandbox \"x\" in store: not found",
            "network namespace for sandbox \"x\" is closed",
            "sandbox container x is not running",
        ] {
            assert!(pod_is_gone(gone), "{gone}");
            assert_eq!(on_error_stream(gone).kind(), ErrorKind::ConnectionRefused, "{gone}");
        }
    }

    #[test]
    fn answers_about_the_pod_are_told_from_those_about_the_way() {
        assert!(no_such_pod(404, "pods \"productpage\" not found"));
        assert!(no_such_pod(500, "pod not found (\"productpage_bookinfo\")"));
        assert!(no_such_pod(400, "pod productpage does not have a host assigned"));
        assert!(!no_such_pod(404, "404 page not found"));
        assert!(!no_such_pod(400, "Upgrade request required"));
        assert!(!no_such_pod(500, "error dialing backend: dial tcp 10.0.0.7:10250: connect: no route to host"));
        assert!(!no_such_pod(403, "pods \"x\" is forbidden"));
    }
}
