//! The filtering rules in what `iptables-save -c` prints. Pure; the text comes from the folder's `mod.rs`.

use std::collections::BTreeMap;

use crate::model::firewall::{Chain, Condition, Counted, Field, FilterRule, Verdict};

/// Where the built-in chains hook in, in the tables that filter, with the kernel's priority (nf_ip_hook_priorities).
const HOOKS: [(&str, &str, &str, i32); 6] = [
    ("raw", "PREROUTING", "prerouting", -300),
    ("mangle", "PREROUTING", "prerouting", -150),
    ("mangle", "FORWARD", "forward", -150),
    ("mangle", "POSTROUTING", "postrouting", -150),
    ("filter", "FORWARD", "forward", 0),
    ("security", "FORWARD", "forward", 50),
];

/// Match modules without which nothing is missed: their options are read below, or say nothing of the packet.
const KNOWN: [&str; 8] = ["tcp", "udp", "comment", "conntrack", "state", "mark", "multiport", "addrtype"];

/// kube-proxy's chains of Services, as long as the cluster is large. What they reject is read by `rules.rs`.
fn is_of_services(chain: &str) -> bool {
    chain.starts_with("KUBE-") && !["KUBE-FORWARD", "KUBE-FIREWALL"].contains(&chain)
}

/// The chains of the filtering tables.
pub fn chains(program: &str, text: &str) -> Vec<Chain> {
    let mut chains: BTreeMap<(&str, String), Chain> = BTreeMap::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            continue;
        }
        if !HOOKS.iter().any(|h| h.0 == table) {
            continue;
        }
        if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            let hook = HOOKS.iter().find(|h| (h.0, h.1) == (table, name));
            let chain = Chain {
                program: program.to_owned(),
                family: "ip".to_owned(),
                table: table.to_owned(),
                name: name.to_owned(),
                hook: hook.map(|h| h.2.to_owned()),
                priority: hook.map_or(0, |h| h.3),
                drops: policy == "DROP",
                packets: words.next().filter(|_| policy == "DROP").and_then(counter),
                ..Chain::default()
            };
            if !is_of_services(name) {
                chains.insert((table, name.to_owned()), chain);
            }
            continue;
        }
        let (packets, rest) = match line.strip_prefix('[') {
            Some(rest) => (counter(line), rest.split_once("] ").map_or("", |(_, rest)| rest)),
            None => (None, line),
        };
        let words = words(rest);
        if let [add, name, options @ ..] = words.as_slice()
            && add == "-A"
            && let Some(chain) = chains.get_mut(&(table, name.clone()))
            && let Some((when, then)) = rule(options)
        {
            chain.rules.push(FilterRule { text: rest.to_owned(), when, then, packets });
        }
    }
    chains.into_values().collect()
}

/// `[packets:bytes]`.
fn counter(text: &str) -> Option<Counted> {
    let before = text.trim_start_matches('[').split(':').next()?.parse().ok()?;
    Some(Counted { before, after: None })
}

/// Words as a shell would part them; comments stand in quotes.
fn words(line: &str) -> Vec<String> {
    let (mut found, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                found.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()))
            }
            c => word.push(c),
        }
    }
    found.extend(Some(word).filter(|w| !w.is_empty()));
    found
}

/// What a rule asks for and what it does; none where it decides nothing.
fn rule(options: &[String]) -> Option<(Vec<Condition>, Verdict)> {
    let mut when = Vec::new();
    let mut words = options.iter().map(String::as_str).peekable();
    let mut not = false;
    while let Some(option) = words.next() {
        let on = match option {
            "!" => {
                not = true;
                continue;
            }
            "-j" | "-g" => {
                let target = words.next()?;
                let rest: Vec<&str> = words.collect();
                return verdict(target, option == "-g", &rest).map(|verdict| (when, verdict));
            }
            "-s" | "--source" | "--src-range" => Field::Source,
            "-d" | "--destination" | "--dst-range" => Field::Destination,
            "-i" => Field::InDevice,
            "-o" => Field::OutDevice,
            "-p" => Field::Protocol,
            "--sport" | "--sports" => Field::SourcePort,
            "--dport" | "--dports" => Field::DestinationPort,
            "--ctstate" | "--state" => Field::State,
            "--ctstatus" => Field::Status,
            "--mark" => Field::Mark,
            "--dst-type" => Field::DestinationType,
            "--syn" => {
                when.push(Condition { on: Field::Syn, any: Vec::new(), not: std::mem::take(&mut not) });
                continue;
            }
            "--tcp-flags" => {
                let set = words.nth(1);
                let on = if set == Some("SYN") { Field::Syn } else { Field::Other };
                when.push(Condition { on, any: Vec::new(), not: std::mem::take(&mut not) });
                continue;
            }
            "--comment" => {
                words.next();
                continue;
            }
            "-m" => {
                let module = words.next()?;
                if !KNOWN.contains(&module) {
                    when.push(Condition { on: Field::Other, any: vec![module.to_owned()], not: false });
                }
                continue;
            }
            other => {
                when.push(Condition { on: Field::Other, any: vec![other.to_owned()], not: std::mem::take(&mut not) });
                while words.peek().is_some_and(|w| !w.starts_with('-') && *w != "!") {
                    words.next();
                }
                continue;
            }
        };
        let value = words.next()?;
        when.push(Condition { on, any: values(on, value), not: std::mem::take(&mut not) });
    }
    None
}

/// iptables' spelling of values as the model has it.
fn values(on: Field, value: &str) -> Vec<String> {
    match on {
        Field::InDevice | Field::OutDevice => vec![value.replace('+', "*")],
        Field::Mark => vec![value.to_owned()],
        Field::SourcePort | Field::DestinationPort => value.split(',').map(|v| v.replace(':', "-")).collect(),
        _ => value.split(',').map(str::to_lowercase).collect(),
    }
}

fn verdict(target: &str, goto: bool, options: &[&str]) -> Option<Verdict> {
    let with = || options.windows(2).find(|w| w[0] == "--reject-with").map_or("icmp-port-unreachable", |w| w[1]);
    Some(match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "REJECT" => Verdict::Reject { with: with().to_owned() },
        "RETURN" => Verdict::Return,
        "NFQUEUE" | "QUEUE" | "TPROXY" => Verdict::Unknown,
        // Targets that only change or note something are in capitals, as are many chains: only a chain of that name,
        // or its absence, tells them apart when the rules are walked.
        _ if NOTING.contains(&target) => return None,
        chain if goto => Verdict::Goto { to: chain.to_owned() },
        chain => Verdict::Jump { to: chain.to_owned() },
    })
}

/// Targets after which the packet goes on with the next rule.
const NOTING: [&str; 16] = [
    "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "TRACE", "DSCP", "TOS", "TTL", "CLASSIFY",
    "SET", "CHECKSUM", "AUDIT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filtering_chains_are_read_with_their_counters() {
        let chains = chains(
            "iptables-nft",
            r#"# Generated
*raw
:PREROUTING ACCEPT [10:600]
[3:180] -A PREROUTING ! -i lo+ -p tcp -m tcp --dport 30080 -m comment --comment "no \"pages\" here" -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
[0:0] -A PREROUTING -j KUBE-SERVICES
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [7:420]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:mine - [0:0]
[0:0] -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
[0:0] -A FORWARD -j KUBE-FORWARD
[0:0] -A FORWARD -d 10.244.0.0/16 -p tcp -m multiport --dports 80,9000:9100 -g mine
[0:0] -A FORWARD -m limit --limit 5/min -j LOG --log-prefix "x "
[0:0] -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
[0:0] -A KUBE-SERVICES -p tcp --dport 1 -j REJECT
[2:120] -A mine -m set --match-set bad src -j REJECT --reject-with icmp-host-prohibited
COMMIT
"#,
        );
        let seen: Vec<String> = chains
            .iter()
            .map(|c| format!("{} {:?} {} {} {}", c.name, c.hook, c.priority, c.drops, c.rules.len()))
            .collect();
        assert_eq!(
            seen,
            [
                r#"FORWARD Some("forward") 0 true 3"#,
                "INPUT None 0 false 0",
                "KUBE-FORWARD None 0 false 1",
                "mine None 0 false 1",
                r#"PREROUTING Some("prerouting") -300 false 1"#,
            ]
        );
        let condition =
            |on, any: &[&str], not| Condition { on, any: any.iter().map(|v| (*v).to_owned()).collect(), not };
        let drop = &chains[4].rules[0];
        assert_eq!((drop.packets, &drop.then), (Some(Counted { before: 3, after: None }), &Verdict::Drop));
        assert_eq!(
            drop.when,
            [
                condition(Field::InDevice, &["lo*"], true),
                condition(Field::Protocol, &["tcp"], false),
                condition(Field::DestinationPort, &["30080"], false),
            ]
        );
        assert_eq!(chains[0].packets, Some(Counted { before: 7, after: None }));
        assert_eq!(chains[0].rules[2].then, Verdict::Goto { to: "mine".to_owned() });
        assert_eq!(chains[0].rules[2].when[2], condition(Field::DestinationPort, &["80", "9000-9100"], false));
        let bad = &chains[3].rules[0];
        assert_eq!(bad.then, Verdict::Reject { with: "icmp-host-prohibited".to_owned() });
        assert!(bad.when.iter().all(|c| c.on == Field::Other), "{:?}", bad.when);
    }
}
