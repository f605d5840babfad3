//! Reads kube-proxy's rules: which nodePort leads to which endpoints. Pure; the text comes from `node.rs`.
//!
//! The chain names are those of kube-proxy's iptables and nftables modes (Kubernetes 1.34–1.37).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::model::{NodePortRule, ProxyMode, Rules};

/// From `iptables-save` (tables nat and filter).
pub fn from_iptables_save(text: &str) -> Rules {
    let mut chains: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
    for line in text.lines() {
        // With counters a rule begins with `[packets:bytes]`.
        let rule = if line.starts_with('[') { line.split_once("] ").map_or("", |(_, rule)| rule) } else { line };
        let mut words = rule.split_whitespace();
        if words.next() == Some("-A")
            && let Some(chain) = words.next()
        {
            chains.entry(chain).or_default().push(words.collect());
        }
    }
    let after = |rule: &[&str], flag: &str| rule.windows(2).find(|w| w[0] == flag).map(|w| w[1].to_owned());
    // A nodePort belongs to one protocol, and browsers speak TCP.
    let tcp = |rule: &[&str]| after(rule, "-p").is_none_or(|protocol| protocol == "tcp");
    let jumps = |chain: &str| -> Vec<String> {
        let rules = chains.get(chain).map(Vec::as_slice).unwrap_or_default();
        rules.iter().filter_map(|r| after(r, "-j").or_else(|| after(r, "-g"))).collect()
    };
    let destinations = |chain: &str| -> Vec<SocketAddr> {
        let rules = chains.get(chain).map(Vec::as_slice).unwrap_or_default();
        rules.iter().filter_map(|r| after(r, "--to-destination")?.parse().ok()).collect()
    };
    let mut node_ports: BTreeMap<u16, NodePortRule> = BTreeMap::new();
    for rule in chains.get("KUBE-NODEPORTS").into_iter().flatten().filter(|r| tcp(r)) {
        let (Some(port), Some(target)) = (after(rule, "--dport").and_then(|p| p.parse().ok()), after(rule, "-j"))
        else {
            continue;
        };
        // The health check port of externalTrafficPolicy Local has an ACCEPT rule of the same shape in table filter.
        if target.starts_with("KUBE-") {
            let backends = closure(&target, &jumps, &destinations);
            node_ports.insert(port, NodePortRule { port, backends, rejects: false });
        }
    }
    for rule in chains.get("KUBE-EXTERNAL-SERVICES").into_iter().flatten().filter(|r| tcp(r)) {
        let verdict = after(rule, "-j").unwrap_or_default();
        if let Some(port) = after(rule, "--dport").and_then(|p| p.parse::<u16>().ok())
            && matches!(verdict.as_str(), "REJECT" | "DROP")
            && rule.windows(2).any(|w| w == ["--dst-type", "LOCAL"])
        {
            let entry = node_ports.entry(port).or_insert(NodePortRule { port, backends: Vec::new(), rejects: false });
            entry.rejects = true;
        }
    }
    let services = chains.get("KUBE-SERVICES").is_some_and(|rules| rules.iter().any(|r| after(r, "--dport").is_some()));
    let known = chains.keys().any(|c| c.starts_with("KUBE-SVC-") || *c == "KUBE-SERVICES");
    Rules { mode: known.then_some(ProxyMode::Iptables), services, node_ports: node_ports.into_values().collect() }
}

/// From `nft -j list table ip kube-proxy`.
pub fn from_nft(listing: &Value) -> Rules {
    let mut chains: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let mut maps: BTreeMap<&str, &[Value]> = BTreeMap::new();
    for item in listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        if let Some(rule) = item.get("rule")
            && let (Some(chain), Some(expr)) = (rule.get("chain").and_then(Value::as_str), rule.get("expr"))
        {
            chains.entry(chain).or_default().push(expr);
        }
        if let Some(map) = item.get("map")
            && let Some(name) = map.get("name").and_then(Value::as_str)
        {
            maps.insert(name, map.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default());
        }
    }
    let jumps = |chain: &str| -> Vec<String> {
        let mut found = Vec::new();
        for expr in chains.get(chain).map(Vec::as_slice).unwrap_or_default() {
            targets(expr, &mut found);
        }
        found
    };
    let destinations = |chain: &str| -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for expr in chains.get(chain).map(Vec::as_slice).unwrap_or_default() {
            dnats(expr, &mut found);
        }
        found
    };
    let mut node_ports: BTreeMap<u16, NodePortRule> = BTreeMap::new();
    for (port, verdict) in elements(maps.get("service-nodeports").copied().unwrap_or_default()) {
        let mut first = Vec::new();
        targets(verdict, &mut first);
        let backends = first.first().map(|target| closure(target, &jumps, &destinations)).unwrap_or_default();
        node_ports.insert(port, NodePortRule { port, backends, rejects: false });
    }
    for (port, _) in elements(maps.get("no-endpoint-nodeports").copied().unwrap_or_default()) {
        let entry = node_ports.entry(port).or_insert(NodePortRule { port, backends: Vec::new(), rejects: false });
        entry.rejects = true;
    }
    Rules {
        mode: (!chains.is_empty()).then_some(ProxyMode::Nftables),
        services: maps.get("service-ips").is_some_and(|e| !e.is_empty()),
        node_ports: node_ports.into_values().collect(),
    }
}

/// The TCP ports of a map keyed by protocol and port, with their verdicts.
fn elements(elem: &[Value]) -> impl Iterator<Item = (u16, &Value)> {
    elem.iter().filter_map(|pair| {
        let pair = pair.as_array()?;
        let (mut key, verdict) = (pair.first()?, pair.get(1)?);
        // An element with a comment or a timeout is wrapped: {"elem": {"val": KEY, …}}.
        if let Some(wrapped) = key.pointer("/elem/val") {
            key = wrapped;
        }
        let concat = key.get("concat")?.as_array()?;
        if concat.first()?.as_str()? != "tcp" {
            return None;
        }
        Some((u16::try_from(concat.get(1)?.as_u64()?).ok()?, verdict))
    })
}

/// Every chain that an expression jumps or goes to.
fn targets(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if matches!(key.as_str(), "goto" | "jump")
                    && let Some(target) = inner.get("target").and_then(Value::as_str)
                {
                    found.push(target.to_owned());
                }
                targets(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| targets(item, found)),
        _ => {}
    }
}

/// Every DNAT destination of an expression.
fn dnats(value: &Value, found: &mut Vec<SocketAddr>) {
    match value {
        Value::Object(map) => {
            if let Some(dnat) = map.get("dnat")
                && let Some(ip) = dnat.get("addr").and_then(Value::as_str).and_then(|a| a.parse::<IpAddr>().ok())
                && let Some(port) = dnat.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok())
            {
                found.push(SocketAddr::new(ip, port));
            }
            map.values().for_each(|inner| dnats(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|item| dnats(item, found)),
        _ => {}
    }
}

/// All destinations reachable by jumps from one chain.
fn closure(
    start: &str,
    jumps: &dyn Fn(&str) -> Vec<String>,
    destinations: &dyn Fn(&str) -> Vec<SocketAddr>,
) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    let mut queue = vec![start.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(chain) = queue.pop() {
        if seen.insert(chain.clone()) {
            found.extend(destinations(&chain));
            queue.extend(jumps(&chain));
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iptables_nodeport_leads_to_its_endpoints() {
        let rules = from_iptables_save(
            r#"*nat
:KUBE-NODEPORTS - [0:0]
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -j KUBE-SVC-DNS
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment "bookinfo/productpage:http" -m tcp --dport 30080 -m nfacct --nfacct-name  x -j KUBE-EXT-A
-A KUBE-NODEPORTS -p tcp -m comment --comment "bookinfo/productpage:http" -m tcp --dport 30080 -j KUBE-EXT-A
-A KUBE-NODEPORTS -p udp -m comment --comment "bookinfo/names:dns" -m udp --dport 30081 -j KUBE-EXT-A
-A KUBE-EXT-A -m comment --comment "masq" -j KUBE-MARK-MASQ
-A KUBE-EXT-A -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-1
-A KUBE-SVC-A -j KUBE-SEP-2
[1:60] -A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:9080
-A KUBE-SEP-2 -p tcp -m tcp -j DNAT --to-destination 10.244.2.3:9080
COMMIT
*filter
-A KUBE-NODEPORTS -p tcp -m tcp --dport 31999 -j ACCEPT
-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "a has no endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30300 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"#,
        );
        assert_eq!(rules.mode, Some(ProxyMode::Iptables));
        assert!(rules.services);
        let ports: Vec<_> = rules.node_ports.iter().map(|r| (r.port, r.backends.len(), r.rejects)).collect();
        assert_eq!(ports, [(30080, 2, false), (30300, 0, true)]);
    }

    #[test]
    fn nft_nodeport_leads_to_its_endpoints() {
        let listing = serde_json::json!({"nftables": [
            {"map": {"name": "service-nodeports", "elem": [
                [{"concat": ["tcp", 30080]}, {"goto": {"target": "external-A"}}],
                [{"concat": ["udp", 30081]}, {"goto": {"target": "external-B"}}]]}},
            {"map": {"name": "service-ips", "elem": [[{"concat": ["10.96.0.1", "tcp", 443]}, {"goto": {"target": "service-X"}}]]}},
            {"map": {"name": "no-endpoint-nodeports", "elem": [[{"elem": {"val": {"concat": ["tcp", 30300]}, "comment": "a"}}, {"goto": {"target": "reject-chain"}}]]}},
            {"rule": {"chain": "external-A", "expr": [{"jump": {"target": "mark-for-masquerade"}}]}},
            {"rule": {"chain": "external-A", "expr": [{"goto": {"target": "service-A"}}]}},
            {"rule": {"chain": "service-A", "expr": [{"vmap": {"key": {"numgen": {"mode": "random", "mod": 1, "offset": 0}}, "data": {"set": [[0, {"goto": {"target": "endpoint-1"}}]]}}}]}},
            {"rule": {"chain": "endpoint-1", "expr": [{"dnat": {"addr": "10.244.1.2", "port": 9080}}]}}
        ]});
        let rules = from_nft(&listing);
        assert_eq!(rules.mode, Some(ProxyMode::Nftables));
        let ports: Vec<_> = rules.node_ports.iter().map(|r| (r.port, r.backends.len(), r.rejects)).collect();
        assert_eq!(ports, [(30080, 1, false), (30300, 0, true)]);
    }

    #[test]
    fn nothing_of_kube_proxy_is_no_mode() {
        assert_eq!(from_iptables_save("*nat\nCOMMIT\n").mode, None);
        assert_eq!(from_nft(&serde_json::json!({"nftables": []})).mode, None);
    }
}
