//! What the environment of this machine does to a browser or a forward on it: its HTTP proxy, and ports that are taken.

use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use super::dial::{Ask, dial};
use crate::model::{GapReason, HttpProxy, Outcome};

/// The variables that browsers, curl and Go read for plain HTTP, the first that is set.
const VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
const SPARING: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The HTTP proxy that the environment names.
pub fn http_proxy() -> Option<HttpProxy> {
    read(|name| std::env::var(name).ok())
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Option<HttpProxy> {
    let set = |names: &[&str]| {
        let mut found = names.iter().filter_map(|name| Some((*name, variable(name)?)));
        found.find(|(_, value)| !value.trim().is_empty()).map(|(name, value)| (name.to_owned(), value))
    };
    let (variable, url) = set(&VARIABLES)?;
    let spared = set(&SPARING).map(|(_, list)| list).unwrap_or_default();
    // Nothing that may be a password.
    let kept = |entry: &&str| !entry.is_empty() && !entry.contains('@');
    let spared = spared.split([',', ' ']).map(str::trim).filter(kept).map(str::to_owned).collect();
    Some(HttpProxy { variable, host: host(&url)?, spared })
}

/// `host:port` of a proxy's URL, without credentials; none for what is no proxy for HTTP.
fn host(url: &str) -> Option<String> {
    let rest = match url.trim().split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return None,
        None => url.trim(),
    };
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    let port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    (!authority.is_empty()).then(|| if port { authority.to_owned() } else { format!("{authority}:80") })
}

/// Asks for a page through a proxy, as a browser does that knows no exception for it.
pub fn through(
    proxy: &str,
    authority: &str,
    path: &str,
    marker: Option<&str>,
    limit: Duration,
) -> Result<(Outcome, Duration), GapReason> {
    let resolved = proxy.to_socket_addrs().map_err(|e| GapReason::Failed { message: format!("{proxy}: {e}") })?;
    let Some(address) = resolved.into_iter().next() else { return Err(GapReason::NothingThere) };
    let url = format!("http://{authority}{path}");
    Ok(dial(address.ip(), address.port(), &Ask { host: authority, path: Some(&url), marker }, limit))
}

/// Whether somebody listens on this port of the loopback, where a forward would.
pub fn is_taken(port: u16) -> bool {
    matches!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)), Err(e) if e.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_proxy_only_host_and_port_are_kept() {
        for (url, expected) in [
            ("http://user:secret@proxy.corp:3128/", Some("proxy.corp:3128")),
            ("proxy.corp:3128", Some("proxy.corp:3128")),
            ("http://10.0.0.1", Some("10.0.0.1:80")),
            ("socks5://10.0.0.1:1080", None),
            ("http://", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_counts() {
        let environment = |name: &str| match name {
            "http_proxy" => Some(String::new()),
            "HTTP_PROXY" => Some("http://proxy:8080".to_owned()),
            "NO_PROXY" => Some("localhost, 10.0.0.0/8,u:p@x,.corp".to_owned()),
            _ => None,
        };
        let spared = ["localhost", "10.0.0.0/8", ".corp"].map(str::to_owned).to_vec();
        let expected = HttpProxy { variable: "HTTP_PROXY".to_owned(), host: "proxy:8080".to_owned(), spared };
        assert_eq!(read(environment), Some(expected));
        assert_eq!(read(|_| None), None);
    }
}
