//! What NO_PROXY spares, as curl and Go read it.

use crate::model::Address;

use super::node;

/// Whether one of the entries means this address: `*`, its IP, a CIDR that holds it, its name or a suffix of it; an
/// entry may name a port as well.
pub fn spares(spared: &[String], address: &Address) -> bool {
    spared.iter().any(|entry| {
        let bare = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
            _ => entry.as_str(),
        };
        let bare = bare.trim_matches(['[', ']']);
        let suffix = bare.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let named = address.host.as_deref().map(str::to_ascii_lowercase).is_some_and(|host| {
            !suffix.is_empty() && (host == suffix || host.strip_suffix(&suffix).is_some_and(|rest| rest.ends_with('.')))
        });
        bare == "*" || bare.parse() == Ok(address.ip) || node::cidr_contains(bare, address.ip) || named
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::AddressSource;

    #[test]
    fn entries_are_read_as_curl_reads_them() {
        for (entry, expected) in [
            ("*", true),
            ("203.0.113.10", true),
            ("203.0.113.10:30080", true),
            ("203.0.113.0/24", true),
            ("10.0.0.0/8", false),
            (".example.com", true),
            ("*.example.com", true),
            ("example.com", true),
            ("lab.example.com", true),
            ("ample.com", false),
            ("", false),
        ] {
            let address = Address {
                ip: "203.0.113.10".parse().unwrap(),
                host: Some("lab.Example.com".to_owned()),
                source: AddressSource::Flag,
                node: None,
            };
            assert_eq!(spares(&[entry.to_owned()], &address), expected, "{entry}");
        }
    }
}
