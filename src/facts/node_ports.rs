//! Which numbers the API server allows as nodePorts.

use std::ops::RangeInclusive;

use crate::model::{ObjectRef, Snapshot};

use super::{node, pod};

const FLAG: &str = "--service-node-port-range";

/// kube-apiserver's default.
pub const DEFAULT: RangeInclusive<u16> = 30_000..=32_767;

/// The range, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    pub range: RangeInclusive<u16>,
    /// The API server's pod or node, and the field; none where nobody says and the default is assumed.
    pub said_by: Option<(ObjectRef, String)>,
}

/// Reads the API server's arguments. None where a nodePort outside the default shows that it must have been told
/// something that cannot be seen.
pub fn allowed(snapshot: &Snapshot) -> Option<Allowed> {
    if let Some(server) = snapshot.objects.api_server_pods.iter().min_by_key(|p| pod::name(p)) {
        let container = pod::containers(server).first()?;
        let words: Vec<&str> = container.command.iter().chain(&container.args).flatten().map(String::as_str).collect();
        let object = ObjectRef::namespaced("Pod", "kube-system", pod::name(server));
        let range = match value(&words) {
            Some(text) => parse(text)?,
            None => DEFAULT,
        };
        return Some(Allowed { range, said_by: Some((object, format!("spec.containers[0].command {FLAG}"))) });
    }
    let mut nodes: Vec<_> = snapshot.objects.nodes.iter().collect();
    nodes.sort_by_key(|n| node::name(n));
    for (key, n) in node::ARGUMENTS.iter().flat_map(|key| nodes.iter().map(move |n| (*key, *n))) {
        let Some(text) = n.metadata.annotations.as_ref().and_then(|a| a.get(key)) else { continue };
        let words: Vec<String> = serde_json::from_str(text).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Some(range) = value(&words).and_then(parse) {
            let object = ObjectRef::cluster("Node", node::name(n));
            return Some(Allowed { range, said_by: Some((object, format!("metadata.annotations[{key}] {FLAG}"))) });
        }
    }
    let ports = snapshot.objects.services.iter().filter_map(|s| s.spec.as_ref()?.ports.as_ref()).flatten();
    let strange = |port: i32| u16::try_from(port).is_ok_and(|p| p != 0 && !DEFAULT.contains(&p));
    let told = ports.filter_map(|p| p.node_port).any(strange);
    (!told).then_some(Allowed { range: DEFAULT, said_by: None })
}

/// `--flag=VALUE`, or `--flag VALUE`.
fn value<'a>(words: &[&'a str]) -> Option<&'a str> {
    let inline = words.iter().find_map(|w| w.strip_prefix(FLAG)?.strip_prefix('='));
    inline.or_else(|| words.windows(2).find(|w| w[0] == FLAG).map(|w| w[1]))
}

/// `30000-32767`, `30000+2767` or one number.
fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    if let Some((low, high)) = text.split_once('-') {
        return Some(number(low)?..=number(high)?);
    }
    if let Some((low, more)) = text.split_once('+') {
        let low = number(low)?;
        return Some(low..=low.saturating_add(number(more)?));
    }
    number(text).map(|only| only..=only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_kube_apiserver_reads_them() {
        for (text, expected) in [
            ("20000-22767", Some(20_000..=22_767)),
            ("20000+100", Some(20_000..=20_100)),
            ("30080", Some(30_080..=30_080)),
            ("all", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(value(&["server", "--service-node-port-range", "80-90"]), Some("80-90"));
        assert_eq!(value(&["kube-apiserver", "--service-node-port-range=80-90"]), Some("80-90"));
        assert_eq!(value(&["kube-apiserver"]), None);
    }
}
