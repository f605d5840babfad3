//! What Cilium's configuration says of nodePorts and hostPorts.

use std::ops::RangeInclusive;

use crate::model::{ObjectRef, Snapshot};

/// The settings that are read.
pub const READ: [&str; 5] =
    ["kube-proxy-replacement", "enable-node-port", "node-port-range", "enable-host-port", "cni-chaining-mode"];

/// The ConfigMap cilium-config, where Cilium runs and it may be read.
pub struct Cilium<'a> {
    /// `kube-proxy-replacement` as written, where it is.
    pub replacement: Option<&'a str>,
    /// Whether Cilium serves Services in kube-proxy's stead; none where that depends on the kernel.
    pub replaces: Option<bool>,
    /// Whether it serves nodePorts.
    pub node_ports: Option<bool>,
    /// The nodePorts that it serves, and the text.
    pub range: Option<(RangeInclusive<u16>, &'a str)>,
    /// Whether pods may have hostPorts.
    pub host_ports: Option<bool>,
}

/// Reads the configuration.
pub fn cilium(snapshot: &Snapshot) -> Option<Cilium<'_>> {
    let data = snapshot.objects.cilium_config.as_ref()?.data.as_ref()?;
    let value = |key: &str| data.get(key).map(String::as_str);
    let truth = |key: &str| value(key).map(|v| v == "true");
    let replacement = value("kube-proxy-replacement");
    // "strict" and "disabled" are the words of versions before 1.14.
    let replaces = match replacement {
        Some("true" | "strict") => Some(true),
        Some("false" | "disabled") => Some(false),
        _ => None,
    };
    let chained = value("cni-chaining-mode").is_some_and(|mode| mode == "portmap");
    let range = value("node-port-range").and_then(|text| {
        let (low, high) = text.split_once(',')?;
        Some((low.trim().parse().ok()?..=high.trim().parse().ok()?, text))
    });
    let either = |own: Option<bool>| match (replaces, own) {
        (Some(true), Some(false)) => Some(false),
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), _) => Some(false),
        (None, _) => None,
    };
    Some(Cilium {
        replacement,
        replaces,
        node_ports: either(truth("enable-node-port")),
        range,
        host_ports: if chained { Some(true) } else { either(truth("enable-host-port")) },
    })
}

/// The ConfigMap, as an object.
pub fn config_map() -> ObjectRef {
    ObjectRef::namespaced("ConfigMap", "kube-system", "cilium-config")
}
