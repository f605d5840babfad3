//! The filtering rules in what `nft -j list table` prints. Pure; the text comes from the folder's `mod.rs`.

use serde_json::Value;

use crate::model::firewall::{Chain, Condition, Counted, Field, FilterRule, Verdict};

/// Hooks that packets for pods pass.
const HOOKS: [&str; 4] = ["ingress", "prerouting", "forward", "postrouting"];

/// The entries of one kind.
pub fn items<'v>(listing: &'v Value, kind: &'v str) -> impl Iterator<Item = &'v Value> {
    let all = listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(move |item| item.get(kind))
}

/// The chains of a listing; those that translate addresses filter nothing.
pub fn chains(listing: &Value) -> Vec<Chain> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut chains: Vec<Chain> = items(listing, "chain")
        .filter(|c| text(c, "type") != "nat")
        .map(|c| Chain {
            program: "nft".to_owned(),
            family: text(c, "family"),
            table: text(c, "table"),
            name: text(c, "name"),
            hook: c.get("hook").and_then(Value::as_str).filter(|h| HOOKS.contains(h)).map(str::to_owned),
            priority: c.get("prio").and_then(Value::as_i64).and_then(|p| i32::try_from(p).ok()).unwrap_or_default(),
            device: c.get("dev").and_then(device),
            drops: text(c, "policy") == "drop",
            ..Chain::default()
        })
        .collect();
    for rule in items(listing, "rule") {
        let of = (text(rule, "family"), text(rule, "table"), text(rule, "chain"));
        let statements = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if let Some(chain) = chains.iter_mut().find(|c| (&c.family, &c.table, &c.name) == (&of.0, &of.1, &of.2))
            && let Some(read) = read(statements, &text(rule, "comment"))
        {
            chain.rules.push(read);
        }
    }
    chains
}

/// One device, or the first of several.
fn device(dev: &Value) -> Option<String> {
    dev.as_str().or_else(|| dev.as_array()?.first()?.as_str()).map(str::to_owned)
}

/// A rule that decides something.
fn read(statements: &[Value], comment: &str) -> Option<FilterRule> {
    let (mut when, mut packets, mut then, mut words) = (Vec::new(), None, None, Vec::new());
    for statement in statements {
        let (name, body) = statement.as_object().and_then(|s| s.iter().next())?;
        match name.as_str() {
            "match" => {
                let condition = condition(body);
                words.push(spelled(body));
                when.push(condition);
            }
            "counter" => {
                let before = body.get("packets").and_then(Value::as_u64);
                packets = before.map(|before| Counted { before, after: None });
            }
            "accept" => then = Some(Verdict::Accept),
            "drop" => then = Some(Verdict::Drop),
            "return" => then = Some(Verdict::Return),
            "reject" => then = Some(Verdict::Reject { with: answer(body) }),
            "jump" | "goto" => {
                let to = body.get("target").and_then(Value::as_str).unwrap_or_default().to_owned();
                then = Some(if name == "jump" { Verdict::Jump { to } } else { Verdict::Goto { to } });
            }
            // What these do to the packet's way is not in the listing, or depends on tables of values.
            "vmap" | "xt" | "queue" | "synproxy" => then = Some(Verdict::Unknown),
            "limit" | "quota" | "ct count" => when.push(Condition { on: Field::Other, any: Vec::new(), not: false }),
            _ => {}
        }
    }
    let then = then?;
    words.push(word(&then));
    if !comment.is_empty() {
        words.push(format!("# {comment}"));
    }
    Some(FilterRule { text: words.join(" "), when, then, packets })
}

/// The answer of a reject, named as iptables does.
fn answer(body: &Value) -> String {
    let kind = body.get("type").and_then(Value::as_str).unwrap_or_default();
    let default = if kind == "tcp reset" { "tcp-reset" } else { "icmp-port-unreachable" };
    let code = body.get("expr").and_then(Value::as_str);
    code.map_or_else(|| default.to_owned(), |code| format!("icmp-{code}"))
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Reject { with } => format!("reject with {with}"),
        Verdict::Jump { to } => format!("jump {to}"),
        Verdict::Goto { to } => format!("goto {to}"),
        Verdict::Return => "return".to_owned(),
        Verdict::Unknown => "…".to_owned(),
    }
}

/// A match as a condition of the model; `Other` where it looks at something else.
fn condition(body: &Value) -> Condition {
    let other = Condition { on: Field::Other, any: Vec::new(), not: false };
    let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else { return other };
    let not = match body.get("op").and_then(Value::as_str) {
        Some("==" | "in") => false,
        Some("!=") => true,
        _ => return other,
    };
    let key = |of: &str, name: &str| left.pointer(&format!("/{of}/{name}")).and_then(Value::as_str);
    let payload = (key("payload", "protocol"), key("payload", "field"));
    let on = match (payload, key("meta", "key"), key("ct", "key")) {
        ((Some("ip" | "ip6"), Some("saddr")), ..) => Field::Source,
        ((Some("ip" | "ip6"), Some("daddr")), ..) => Field::Destination,
        ((Some("ip"), Some("protocol")), ..) | (_, Some("l4proto"), _) => Field::Protocol,
        ((Some("tcp" | "th"), Some("sport")), ..) => Field::SourcePort,
        ((Some("tcp" | "th"), Some("dport")), ..) => Field::DestinationPort,
        (_, Some("iifname" | "iif"), _) => Field::InDevice,
        (_, Some("oifname" | "oif"), _) => Field::OutDevice,
        (.., Some("state")) => Field::State,
        (.., Some("status")) => Field::Status,
        ((Some("udp" | "icmp" | "icmpv6" | "sctp"), _), ..) => {
            // Another protocol than the page's: it never matches.
            return Condition { on: Field::Protocol, any: vec!["udp".to_owned()], not: false };
        }
        _ => return other,
    };
    match values(right) {
        Some(any) => Condition { on, any, not },
        None => other,
    }
}

/// The values on the right of a match; none where they are not in the rule itself, as with a named set.
fn values(right: &Value) -> Option<Vec<String>> {
    match right {
        Value::String(name) if name.starts_with('@') => None,
        Value::String(name) => Some(vec![name.clone()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Array(list) => list.iter().map(values).collect::<Option<Vec<_>>>().map(|v| v.concat()),
        Value::Object(map) => {
            let (kind, body) = map.iter().next()?;
            match kind.as_str() {
                "set" => values(body),
                "prefix" => Some(vec![format!("{}/{}", body.get("addr")?.as_str()?, body.get("len")?.as_u64()?)]),
                "range" => {
                    let ends = values(body)?;
                    Some(vec![format!("{}-{}", ends.first()?, ends.get(1)?)])
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A match roughly as nft writes it.
fn spelled(body: &Value) -> String {
    let left = body.get("left").and_then(Value::as_object).and_then(|l| l.iter().next());
    let part = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let left = match left {
        Some((kind, of)) if kind == "payload" => format!("{} {}", part(of, "protocol"), part(of, "field")),
        Some((kind, of)) if kind == "meta" => part(of, "key"),
        Some((kind, of)) => format!("{kind} {}", part(of, "key")),
        None => "…".to_owned(),
    };
    let right = body.get("right").map(|right| match values(right) {
        Some(values) => values.join(","),
        None => right.as_str().map_or_else(|| "…".to_owned(), str::to_owned),
    });
    let not = if body.get("op").and_then(Value::as_str) == Some("!=") { "!= " } else { "" };
    format!("{left} {not}{}", right.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn base_chains_are_read_with_what_they_reject() {
        let payload = |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let of = |chain: &str, expr: Value| json!({"rule": {"family": "inet", "table": "wall", "chain": chain, "handle": 4, "expr": expr}});
        let listing = json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "wall", "handle": 1}},
            {"chain": {"family": "inet", "table": "wall", "name": "forward", "handle": 1, "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
            {"chain": {"family": "inet", "table": "wall", "name": "nat", "handle": 2, "type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"}},
            of("forward", json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}])),
            of("forward", json!([{"match": {"op": "==", "left": payload("ip", "daddr"), "right": {"prefix": {"addr": "10.244.0.0", "len": 16}}}},
                {"counter": {"packets": 5, "bytes": 300}}, {"reject": {"type": "icmp", "expr": "host-prohibited"}}])),
            of("forward", json!([{"match": {"op": "!=", "left": payload("tcp", "dport"), "right": {"set": [22, {"range": [80, 90]}]}}}, {"log": null}])),
            of("forward", json!([{"match": {"op": "==", "left": payload("ip", "saddr"), "right": "@bad"}}, {"drop": null}])),
        ]});
        let chains = chains(&listing);
        assert_eq!(chains.len(), 1);
        assert_eq!((chains[0].hook.as_deref(), chains[0].priority), (Some("forward"), 10));
        let texts: Vec<&str> = chains[0].rules.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "ct state established,related accept",
                "ip daddr 10.244.0.0/16 reject with icmp-host-prohibited",
                "ip saddr @bad drop"
            ]
        );
        let rules = &chains[0].rules;
        assert_eq!(rules[0].when[0].any, ["established", "related"]);
        assert_eq!(rules[1].packets, Some(Counted { before: 5, after: None }));
        assert_eq!(rules[2].when[0].on, Field::Other);
    }

    #[test]
    fn sets_and_ranges_are_values() {
        let condition = condition(&json!({"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"set": [22, {"range": [80, 90]}]}}));
        assert_eq!((condition.any, condition.not), (vec!["22".to_owned(), "80-90".to_owned()], true));
    }
}
