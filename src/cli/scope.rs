//! From the flags that all verbs share to a cluster, its targets and the address that counts.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::args::Globals;
use crate::check::{self, Report};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::facts::{Facts, TargetFacts};
use crate::model::{Finding, Severity, Snapshot, Target, Text};
use crate::observe::addresses::Wanted;
use crate::observe::{self, Cluster, Scope};

/// A Service changed less than this many seconds ago is fresh.
const FRESH: i64 = 10;
/// A settling workload is looked at this often.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// A connected cluster, and what is looked at in it.
pub struct Field {
    pub cluster: Cluster,
    pub targets: Vec<Target>,
    pub wanted: Wanted,
}

/// Connects and chooses the targets.
///
/// # Errors
/// Where the cluster is not reached, or an argument names no single target.
pub async fn enter(globals: &Globals, arguments: &[String]) -> Result<Field, ExpectedError> {
    let host = typed(globals)?.map(|t| t.host);
    let cluster = observe::connect(&globals.connection).await?;
    let targets = targets(globals, &cluster, arguments).await?;
    Ok(Field { cluster, targets, wanted: Wanted { host, imds: globals.imds } })
}

/// Chooses the targets in a cluster that is connected already.
///
/// # Errors
/// Where an argument names no single target, or nothing may be read.
pub async fn targets(globals: &Globals, cluster: &Cluster, arguments: &[String]) -> Result<Vec<Target>, ExpectedError> {
    let (port, path, https) = typed(globals)?.map(|t| (t.port, t.path, t.https)).unwrap_or_default();
    let scope = Scope { arguments: arguments.to_vec(), all: globals.all_namespaces, port, path, https };
    Ok(observe::choose(cluster, &scope).await?)
}

fn typed(globals: &Globals) -> Result<Option<Typed>, ExpectedError> {
    globals.address.as_deref().map(parse_address).transpose()
}

/// A look at a cluster that had its time: a rollout or fresh start in progress is waited for, and so are rules that
/// kube-proxy has yet to write. All looks together take at most `limit`, unless the first alone takes longer. What is
/// certainly broken is not waited for. `waiting` is told once. A glance that was taken just before serves as the
/// beginning of the first look.
pub async fn settled(
    field: &Field,
    limit: Duration,
    mut glance: Option<Snapshot>,
    mut waiting: impl FnMut(&TargetFacts<'_>),
) -> Snapshot {
    let deadline = Instant::now() + limit;
    let mut told = false;
    loop {
        let begun = Instant::now();
        let snapshot = match glance.take() {
            Some(glance) => observe::complete(&field.cluster, glance).await,
            None => observe::look(&field.cluster, &field.targets, &field.wanted).await,
        };
        let facts = Facts::derive(&snapshot);
        let report = check::run(&facts);
        let waits_for = facts.targets.iter().find(|t| {
            let blamed = errors(&report, &t.target.to_string()).next().is_some();
            t.reach.answers != Some(true) && !blamed && is_young(t, &facts)
        });
        // Another look takes about as long.
        let over = Instant::now() + SETTLE_EVERY + begun.elapsed();
        let Some(target) = waits_for.filter(|_| over < deadline) else {
            return snapshot;
        };
        if !std::mem::replace(&mut told, true) {
            waiting(target);
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
}

/// What breaks access to a target.
pub fn errors<'r>(report: &'r Report, target: &str) -> impl Iterator<Item = &'r Finding> {
    report.findings.iter().filter(move |f| f.target == target && f.severity == Severity::Error)
}

/// Whether a rollout or a fresh start is in progress, so that a page that does not answer yet is not broken yet.
pub fn is_young(target: &TargetFacts<'_>, facts: &Facts<'_>) -> bool {
    target.settling || is_fresh(target, facts)
}

/// So young that kube-proxy may not have written its rules yet.
fn is_fresh(target: &TargetFacts<'_>, facts: &Facts<'_>) -> bool {
    target.service.as_ref().and_then(|s| s.unchanged_for(facts.now())).is_some_and(|seconds| seconds < FRESH)
}

/// `--address`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Typed {
    host: String,
    port: Option<u16>,
    path: Option<String>,
    https: bool,
}

/// An IP, a host, `host:port`, or the URL typed into the browser.
fn parse_address(text: &str) -> Result<Typed, ExpectedError> {
    let bad = || ExpectedError::new(Exit::Usage, Text::new("error.address").with("value", text));
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Typed { host: ip.to_string(), port: None, path: None, https: false });
    }
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: http::Uri = whole.parse().map_err(|_| bad())?;
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(bad)?;
    let path = Some(uri.path().to_owned()).filter(|p| !p.is_empty() && p != "/");
    let https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
    Ok(Typed { host: host.trim_matches(['[', ']']).to_owned(), port: uri.port_u16(), path, https })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_typed() {
        let typed = |host: &str, port, path: Option<&str>| {
            Some(Typed { host: host.to_owned(), port, path: path.map(str::to_owned), https: false })
        };
        let secure = typed("203.0.113.10", Some(30080), Some("/productpage")).map(|t| Typed { https: true, ..t });
        for (text, expected) in [
            ("203.0.113.10", typed("203.0.113.10", None, None)),
            ("203.0.113.10:30080", typed("203.0.113.10", Some(30080), None)),
            ("http://203.0.113.10:30080/productpage", typed("203.0.113.10", Some(30080), Some("/productpage"))),
            ("https://203.0.113.10:30080/productpage", secure),
            ("http://[2001:db8::1]:30080/", typed("2001:db8::1", Some(30080), None)),
            ("2001:db8::1", typed("2001:db8::1", None, None)),
            ("lab.example.com", typed("lab.example.com", None, None)),
            ("", None),
            ("http://", None),
            ("a b", None),
        ] {
            assert_eq!(parse_address(text).ok(), expected, "{text}");
        }
    }
}
