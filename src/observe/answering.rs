//! How the API server answers: how long a small request takes, what its clock says, and how long our credentials hold there.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kube::client::Body;
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use x509_parser::pem::parse_x509_pem;

use super::client::Cluster;
use super::objects::{limit, reason};
use crate::model::{Answering, GapReason};

/// A request that took so long is made again: the first may have met a hiccup.
const SLOW: Duration = Duration::from_secs(1);

/// Asks for the version, which every user may read and which costs the API server nothing.
///
/// # Errors
/// Why it gave no answer.
pub async fn answering(cluster: &Cluster) -> Result<Answering, GapReason> {
    let (mut took, clock_ahead) = ask(cluster).await?;
    if took >= SLOW
        && let Ok((again, _)) = ask(cluster).await
    {
        took = took.min(again);
    }
    Ok(Answering { millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), clock_ahead })
}

async fn ask(cluster: &Cluster) -> Result<(Duration, Option<i64>), GapReason> {
    let request = http::Request::get("/version")
        .body(Body::empty())
        .map_err(|error| GapReason::Failed { message: error.to_string() })?;
    let (start, sent_at) = (Instant::now(), Timestamp::now());
    let response = match tokio::time::timeout(limit(cluster), cluster.client.send(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(reason(&error, "get", "/version")),
        Err(_) => return Err(GapReason::Timeout),
    };
    if response.status() == http::StatusCode::UNAUTHORIZED {
        return Err(GapReason::Unauthorized);
    }
    let took = start.elapsed();
    let said = response.headers().get(http::header::DATE).and_then(|d| d.to_str().ok());
    Ok((took, said.and_then(|date| ahead(date, sent_at, took))))
}

/// Seconds by which a Date is ahead of this machine's clock in the middle of the request.
fn ahead(date: &str, sent_at: Timestamp, took: Duration) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let half = i64::try_from(took.as_secs() / 2).ok()?;
    Some(theirs.as_second() - sent_at.as_second() - half)
}

/// When the client certificate or the token of the kubeconfig ends; none where it does not say, or another program
/// makes the credentials.
pub fn credentials_end(user: &AuthInfo) -> Option<Timestamp> {
    let file = |path: &Option<String>| path.as_ref().and_then(|p| std::fs::read(p).ok());
    let inline = user.client_certificate_data.as_ref().and_then(|data| STANDARD.decode(data.trim()).ok());
    if let Some(pem) = inline.or_else(|| file(&user.client_certificate)) {
        return certificate_end(&pem);
    }
    let inline = user.token.as_ref().map(|t| t.expose_secret().to_owned());
    let token = inline.or_else(|| file(&user.token_file).and_then(|bytes| String::from_utf8(bytes).ok()))?;
    token_end(token.trim())
}

fn certificate_end(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The claim `exp` of a JSON web token; opaque tokens have none.
fn token_end(token: &str) -> Option<Timestamp> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims.get("exp")?.as_i64()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_date_is_compared_with_the_middle_of_the_request() {
        let sent_at = "2026-11-23T12:00:00Z".parse().unwrap();
        for (date, took, expected) in [
            ("Mon, 23 Nov 2026 12:00:02 GMT", 4, Some(0)),
            ("Mon, 23 Nov 2026 12:10:00 GMT", 0, Some(600)),
            ("Mon, 23 Nov 2026 11:50:00 GMT", 0, Some(-600)),
            ("yesterday", 0, None),
        ] {
            assert_eq!(ahead(date, sent_at, Duration::from_secs(took)), expected, "{date}");
        }
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let end = "2026-11-23T12:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(token_end(&token(&format!("{{\"exp\":{}}}", end.as_second()))), Some(end));
        for opaque in [token("{}"), token("no json"), "abcdef.0123456789abcdef".to_owned(), String::new()] {
            assert_eq!(token_end(&opaque), None, "{opaque}");
        }
    }

    /// Answers every request with 404 and a Date that is not now.
    fn misdated(date: &'static str) -> std::net::SocketAddr {
        use std::io::{BufRead as _, BufReader, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(&stream).lines();
                    while let Some(Ok(line)) = lines.next() {
                        if line.is_empty() {
                            let answer = format!("HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
                            (&stream).write_all(answer.as_bytes()).unwrap_or_default();
                        }
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn the_clock_of_the_api_server_is_read_from_its_answers() {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("config");
        std::fs::write(&kubeconfig, "apiVersion: v1\nkind: Config\n").unwrap();
        let server = format!("http://{}", misdated("Sun, 06 Nov 1994 08:49:37 GMT"));
        let connection =
            super::super::Connection { kubeconfig: Some(kubeconfig), server: Some(server), ..Default::default() };
        let cluster = super::super::connect(&connection).await.unwrap();
        let behind = answering(&cluster).await.unwrap().clock_ahead.unwrap();
        let then: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let expected = then.as_second() - Timestamp::now().as_second();
        assert!((expected - 30..=expected + 30).contains(&behind), "{behind}, not {expected}");
    }
}
