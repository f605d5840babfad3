//! Walks a packet through the firewall's chains: where it may be stopped, and whether it surely is.
//!
//! Three-valued: a condition that is not understood may hold or not. A rule that surely matches decides; one that may
//! match makes everything behind it unsure. Counters that rose during the probe, or did not, settle what is unsure.

use std::net::IpAddr;

use super::node::cidr_contains;
use crate::model::firewall::{Chain, Condition, Counted, Field, FilterRule, Verdict};
use crate::model::{Confidence, Firewall};

/// kube-proxy's mark for packets whose source will be translated (masqueradeBit 14).
const MASQUERADE: &str = "0x4000/0x4000";
/// Chains that jump deeper than this are nobody's.
const DEPTH: usize = 16;

/// A packet at one place of its way; what is none is not known.
#[derive(Debug, Clone, Default)]
pub struct Packet {
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
    pub in_device: Option<String>,
    pub out_device: Option<String>,
    /// An answer, of a connection that was seen before.
    pub answer: bool,
    /// kube-proxy's translation has happened.
    pub translated: bool,
    /// Whether kube-proxy marked it to translate its source.
    pub masqueraded: bool,
    /// Something before keeps it from coming here: that a counter did not rise proves nothing.
    pub held_up: bool,
}

/// Where a packet may be stopped.
#[derive(Debug, Clone, Copy)]
pub struct Barrier<'a> {
    /// The base chain that the packet entered.
    pub base: &'a Chain,
    /// The chain that holds the rule.
    pub chain: &'a Chain,
    /// None where it is the chain's policy.
    pub rule: Option<&'a FilterRule>,
    /// Whether the packet surely gets no further.
    pub sure: bool,
    held_up: bool,
}

impl Barrier<'_> {
    fn packets(&self) -> Option<&Counted> {
        match self.rule {
            Some(rule) => rule.packets.as_ref(),
            // Older iptables of the nft backend do not count what meets a policy.
            None => self.base.packets.as_ref().filter(|c| c.before > 0 || c.rose() == Some(true)),
        }
    }

    /// By how much its counter rose during the probe.
    pub fn risen(&self) -> Option<u64> {
        self.packets().and_then(|c| Some(c.after?.saturating_sub(c.before)))
    }

    /// How sure it is that this stops the packet; none where its counter says that it does not, or nothing says so.
    pub fn confidence(&self) -> Option<Confidence> {
        match (self.packets().and_then(Counted::rose), self.sure) {
            (Some(true), true) => Some(Confidence::Certain),
            (Some(true), false) | (None, true) => Some(Confidence::Likely),
            (Some(false), true) if self.held_up => Some(Confidence::Likely),
            (Some(false), _) | (None, false) => None,
        }
    }

    /// The answer that the sender gets; none where the packet vanishes.
    pub fn answer(&self) -> Option<&str> {
        match &self.rule?.then {
            Verdict::Reject { with } => Some(with),
            _ => None,
        }
    }
}

/// What stops the packet in the base chains that `passes` chooses: the surest, else the first on its way.
pub fn blame<'a>(firewall: &'a Firewall, passes: impl Fn(&Chain) -> bool, packet: &Packet) -> Option<Barrier<'a>> {
    let mut bases: Vec<&Chain> = firewall.chains.iter().filter(|c| c.hook.is_some() && passes(c)).collect();
    bases.sort_by_key(|c| (order(c), c.priority, &c.program, &c.family, &c.table, &c.name));
    let met = bases.into_iter().flat_map(|base| barriers(firewall, base, packet));
    let blamed: Vec<(Confidence, Barrier<'a>)> = met.filter_map(|b| Some((b.confidence()?, b))).collect();
    let best = blamed.iter().map(|(confidence, _)| *confidence).max()?;
    blamed.into_iter().find(|(confidence, _)| *confidence == best).map(|(_, barrier)| barrier)
}

fn order(chain: &Chain) -> usize {
    let hooks = ["ingress", "prerouting", "forward", "postrouting"];
    hooks.iter().position(|h| chain.hook.as_deref() == Some(h)).unwrap_or(hooks.len())
}

/// Where one base chain may stop the packet, in the order of its rules.
fn barriers<'a>(firewall: &'a Firewall, base: &'a Chain, packet: &Packet) -> Vec<Barrier<'a>> {
    if base.device.is_some() && base.device != packet.in_device {
        return Vec::new();
    }
    let mut walk = Walk { firewall, base, packet, sure: true, met: Vec::new() };
    let ended = walk.chain(base, 0);
    if !ended && base.drops {
        walk.met.push(Barrier { base, chain: base, rule: None, sure: walk.sure, held_up: packet.held_up });
    }
    walk.met
}

struct Walk<'a, 'p> {
    firewall: &'a Firewall,
    base: &'a Chain,
    packet: &'p Packet,
    /// No rule so far may have let the packet out of the base chain.
    sure: bool,
    met: Vec<Barrier<'a>>,
}

impl<'a> Walk<'a, '_> {
    /// Whether the packet's way surely ends here; else it goes on in the chain that called.
    fn chain(&mut self, chain: &'a Chain, depth: usize) -> bool {
        for rule in &chain.rules {
            let matches = matches(self.packet, &rule.when);
            if matches == Some(false) {
                continue;
            }
            let surely = matches == Some(true);
            match &rule.then {
                Verdict::Accept if surely => return true,
                Verdict::Drop | Verdict::Reject { .. } => {
                    let sure = self.sure && surely;
                    let held_up = self.packet.held_up;
                    self.met.push(Barrier { base: self.base, chain, rule: Some(rule), sure, held_up });
                    if surely {
                        return true;
                    }
                }
                Verdict::Return if surely => return false,
                Verdict::Accept | Verdict::Return | Verdict::Unknown => self.sure = false,
                Verdict::Jump { to } | Verdict::Goto { to } => {
                    let ended = self.jump(chain, to, surely, depth);
                    if ended && surely {
                        return true;
                    }
                    if surely && matches!(rule.then, Verdict::Goto { .. }) {
                        return false;
                    }
                }
            }
        }
        false
    }

    fn jump(&mut self, from: &Chain, to: &str, surely: bool, depth: usize) -> bool {
        let same = |c: &&Chain| {
            (&c.program, &c.family, &c.table) == (&from.program, &from.family, &from.table) && c.name == to
        };
        let Some(chain) = self.firewall.chains.iter().find(same).filter(|_| depth < DEPTH) else { return false };
        let (before, met) = (self.sure, self.met.len());
        let ended = self.chain(chain, depth + 1);
        if !surely {
            self.met[met..].iter_mut().for_each(|b| b.sure = false);
            // It may have been let through in there.
            self.sure = before && self.sure && !ended;
        }
        ended
    }
}

/// Whether all conditions hold: yes, no, or not known.
fn matches(packet: &Packet, when: &[Condition]) -> Option<bool> {
    let each: Vec<Option<bool>> = when.iter().map(|c| holds(packet, c)).collect();
    if each.contains(&Some(false)) {
        return Some(false);
    }
    each.iter().all(|e| *e == Some(true)).then_some(true)
}

fn holds(packet: &Packet, condition: &Condition) -> Option<bool> {
    let any = |test: &dyn Fn(&str) -> Option<bool>| -> Option<bool> {
        let each: Vec<Option<bool>> = condition.any.iter().map(|v| test(v)).collect();
        if each.contains(&Some(true)) {
            return Some(true);
        }
        each.iter().all(|e| *e == Some(false)).then_some(false)
    };
    let address = |ip: Option<IpAddr>| any(&|value| ip.map(|ip| in_network(value, ip)));
    let port = |port: Option<u16>| any(&|value| port.map(|port| in_range(value, port)));
    let device = |name: &Option<String>| any(&|value| name.as_deref().map(|name| is_device(value, name)));
    let state = if packet.answer { "established" } else { "new" };
    let held = match condition.on {
        Field::Source => address(packet.source),
        Field::Destination => address(packet.destination),
        Field::InDevice => device(&packet.in_device),
        Field::OutDevice => device(&packet.out_device),
        Field::Protocol => any(&|value| Some(matches!(value, "tcp" | "6" | "all" | "0"))),
        Field::SourcePort => port(packet.source_port),
        Field::DestinationPort => port(packet.destination_port),
        Field::State => any(&|value| Some(value == state || (value == "dnat" && packet.translated))),
        Field::Status => any(&|value| match value {
            "dnat" => Some(packet.translated),
            _ => None,
        }),
        Field::Mark => any(&|value| (value == MASQUERADE).then_some(packet.masqueraded)),
        Field::DestinationType => any(&|value| (value == "local").then_some(!packet.translated)),
        Field::Syn => Some(!packet.answer),
        Field::Other => None,
    };
    held.map(|held| held != condition.not)
}

/// IP, CIDR or `from-to`.
fn in_network(value: &str, ip: IpAddr) -> bool {
    if let Some((from, to)) = value.split_once('-') {
        return match (from.parse::<IpAddr>(), to.parse::<IpAddr>()) {
            (Ok(from), Ok(to)) => from <= ip && ip <= to && from.is_ipv4() == ip.is_ipv4(),
            _ => false,
        };
    }
    value.parse() == Ok(ip) || cidr_contains(value, ip)
}

fn in_range(value: &str, port: u16) -> bool {
    let (from, to) = value.split_once('-').unwrap_or((value, value));
    match (from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(from), Ok(to)) => (from..=to).contains(&port),
        _ => false,
    }
}

fn is_device(value: &str, name: &str) -> bool {
    value.strip_suffix('*').map_or(value == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn packet() -> Packet {
        Packet {
            source: Some(IpAddr::from([198, 18, 0, 2])),
            destination: Some(IpAddr::from([10, 244, 1, 7])),
            destination_port: Some(9080),
            in_device: Some("ba1".to_owned()),
            out_device: Some("eth0".to_owned()),
            translated: true,
            masqueraded: true,
            ..Packet::default()
        }
    }

    fn condition(on: &str, any: &[&str]) -> serde_json::Value {
        json!({"on": on, "any": any})
    }

    fn rule(when: &[serde_json::Value], then: serde_json::Value, after: Option<u64>) -> serde_json::Value {
        let packets = after.map(|after| json!({"before": 0, "after": after}));
        json!({"text": "x", "when": when, "then": then, "packets": packets})
    }

    fn forward(rules: &[serde_json::Value], drops: bool, more: &[serde_json::Value]) -> Firewall {
        let base = json!({"program": "iptables-nft", "family": "ip", "table": "filter", "name": "FORWARD",
            "hook": "forward", "drops": drops, "rules": rules});
        let chains: Vec<_> = std::iter::once(base).chain(more.iter().cloned()).collect();
        serde_json::from_value(json!({"chains": chains})).unwrap()
    }

    fn verdict(firewall: &Firewall) -> Option<Confidence> {
        blame(firewall, |_| true, &packet()).and_then(|b| b.confidence())
    }

    #[test]
    fn what_stops_a_packet_is_what_surely_matches_or_what_was_counted() {
        let (drop, accept) = (json!({"do": "drop"}), json!({"do": "accept"}));
        let pods = condition("destination", &["10.244.0.0/16"]);
        let marked = condition("mark", &["0x4000/0x4000"]);
        let odd = condition("other", &["limit"]);
        let chain = |rules: &[serde_json::Value]| json!({"program": "iptables-nft", "family": "ip", "table": "filter", "name": "mine", "rules": rules});
        let mine = json!({"do": "jump", "to": "mine"});
        use Confidence::{Certain, Likely};
        let table = [
            ("nothing there", forward(&[], false, &[]), None),
            ("a policy", forward(&[], true, &[]), Some(Likely)),
            ("marked before the policy", forward(&[rule(&[marked], accept.clone(), None)], true, &[]), None),
            (
                "a rule for the pods",
                forward(&[rule(std::slice::from_ref(&pods), drop.clone(), None)], false, &[]),
                Some(Likely),
            ),
            (
                "counted",
                forward(&[rule(std::slice::from_ref(&pods), drop.clone(), Some(3))], false, &[]),
                Some(Certain),
            ),
            ("not counted", forward(&[rule(std::slice::from_ref(&pods), drop.clone(), Some(0))], false, &[]), None),
            (
                "unsure, counted",
                forward(&[rule(std::slice::from_ref(&odd), drop.clone(), Some(3))], false, &[]),
                Some(Likely),
            ),
            ("unsure", forward(&[rule(std::slice::from_ref(&odd), drop.clone(), None)], false, &[]), None),
            (
                "an unsure accept before",
                forward(
                    &[rule(&[odd], accept.clone(), None), rule(std::slice::from_ref(&pods), drop.clone(), None)],
                    false,
                    &[],
                ),
                None,
            ),
            (
                "another device",
                forward(&[rule(&[condition("inDevice", &["eth*"])], drop.clone(), None)], false, &[]),
                None,
            ),
            (
                "another port",
                forward(&[rule(&[condition("destinationPort", &["80", "9000-9079"])], drop.clone(), None)], false, &[]),
                None,
            ),
            (
                "only answers",
                forward(&[rule(&[condition("state", &["established"])], drop.clone(), None)], false, &[]),
                None,
            ),
            (
                "in a chain of its own",
                forward(
                    &[rule(&[], mine.clone(), None)],
                    false,
                    &[chain(&[rule(std::slice::from_ref(&pods), drop, None)])],
                ),
                Some(Likely),
            ),
            (
                "accepted in a chain",
                forward(&[rule(&[], mine, None)], true, &[chain(&[rule(&[pods], accept, None)])]),
                None,
            ),
        ];
        for (what, firewall, expected) in table {
            assert_eq!(verdict(&firewall), expected, "{what}");
        }
    }

    proptest! {
        /// A condition that is not understood makes no verdict surer than the one it stands for.
        #[test]
        fn not_knowing_is_never_surer(rules in proptest::collection::vec((0..3usize, 0..2usize, 0..2usize), 1..6), at in 0..6usize) {
            let conditions = [condition("destination", &["10.244.0.0/16"]), condition("destinationPort", &["80"]), condition("other", &[])];
            let verdicts = [json!({"do": "drop"}), json!({"do": "accept"})];
            let build = |rules: &[(usize, usize, usize)]| {
                let rules: Vec<_> = rules.iter().map(|(c, v, _)| rule(&[conditions[*c].clone()], verdicts[*v].clone(), None)).collect();
                forward(&rules, false, &[])
            };
            let mut vague = rules.clone();
            let at = at % vague.len();
            if vague[at].0 == 0 {
                vague[at].0 = 2;
            }
            let (known, unknown) = (verdict(&build(&rules)), verdict(&build(&vague)));
            // A drop that is unsure is no drop; an accept that is unsure hides those behind it.
            prop_assert!(unknown <= known || vague[at].1 == 0);
        }
    }
}
