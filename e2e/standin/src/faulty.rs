//! Faults that an application may have of its own, chosen by FAULT in the environment.

use crate::http::{Reply, Request};

/// How this process misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Every page is answered with 500.
    Error,
    /// Every request from outside is reset, as a mesh that wants mutual TLS resets plain HTTP. Its proxy does not stand
    /// before the pod's own loopback.
    Reset,
    /// Every request from outside is denied in the words of Envoy's RBAC filter.
    Forbidden,
    /// Plain HTTP is answered as a TLS server answers it: in the words of Go's net/http.
    Tls,
}

/// What a TLS server of Go says to plain HTTP (net/http, server.go).
pub const WANTS_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// A fatal alert, handshake_failure (RFC 8446 §6): whoever begins with TLS gets no further.
pub const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28";

impl Fault {
    /// The one that the environment names; none where it names none.
    pub fn from_env() -> Result<Option<Self>, String> {
        let Ok(word) = std::env::var("FAULT") else { return Ok(None) };
        Self::parse(&word).map(Some).ok_or_else(|| format!("no fault {word}; there are error, reset, forbidden, tls"))
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "error" => Self::Error,
            "reset" => Self::Reset,
            "forbidden" => Self::Forbidden,
            "tls" => Self::Tls,
            _ => return None,
        })
    }

    /// What it makes of a request; none where that is the application's.
    pub fn answer(self, request: &Request) -> Option<Reply> {
        let text = |status, body: &str| Some(Reply::Text { status, kind: "text/plain", body: body.to_owned() });
        match self {
            Self::Error if request.path != "/health" => text(500, "Internal Server Error\n"),
            Self::Forbidden if !request.from_inside => text(403, "RBAC: access denied"),
            Self::Reset if !request.from_inside => Some(Reply::Reset { after: 0 }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_by_its_name() {
        assert_eq!(Fault::parse("tls"), Some(Fault::Tls));
        assert_eq!(Fault::parse("nothing"), None);
        let health = Request { path: "/health".to_owned(), ..Request::default() };
        assert!(Fault::Error.answer(&health).is_none());
        assert!(matches!(Fault::Error.answer(&Request::default()), Some(Reply::Text { status: 500, .. })));
        assert!(matches!(Fault::Reset.answer(&Request::default()), Some(Reply::Reset { .. })));
        let inside = Request { from_inside: true, ..Request::default() };
        assert!(Fault::Reset.answer(&inside).is_none() && Fault::Forbidden.answer(&inside).is_none());
    }
}
