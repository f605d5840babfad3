//! The text of our nftables rules.
//!
//! Pure. One table a forward and address family, before kube-proxy's hooks. What acts in it are leases: elements that
//! expire unless renewed. The chains and the slots of the endpoints stand still meanwhile, so that a renewal is small.
//!
//! ```text
//! a stranger  ->  @kernel (lease) -> pair_N: count -> way_N: mark, DNAT to slot (random or by client) -> endpoint
//!             ->  @front  (lease) -> DNAT to the listener's private port
//! our probe   ->  @proven (lease) -> way_N                         the path as strangers will take it
//!             ->  @each   (lease) -> DNAT to one endpoint          each endpoint by itself
//! outsider probes of anybody: nothing of ours, and a RST where they would reach our listener
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{TABLE_PREFIX, Way};
use crate::forward::slots::{SEED, SLOTS, Slots};

/// How long a lease lasts.
pub const LEASE: Duration = Duration::from_secs(3);

/// Our bit of the connection mark: only connections that carry it are masqueraded by us.
/// Bits are a shared space (<https://github.com/fwmark/registry>): kube-proxy has 14 and 15, the CNI plugin portmap 13,
/// Calico, Weave and Tailscale 16 and up, AWS' CNI 7, Istio the whole value 1337. Bit 12 is named by Cilium alone, for
/// packet marks on nodes without a netfilter path, where this carrier is not used.
pub const MARK: u32 = 1 << 12;

/// Says in a table whose it is.
pub const COMMENT: &str = "kubectl-bookaccess forward";

/// Which of the two protocols a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both, in the order their tables are written.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As nft calls tables, expressions and address types of this family.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::V4 => ("ip", "ipv4_addr"),
            Self::V6 => ("ip6", "ipv6_addr"),
        }
    }
}

/// Where our own probe comes from, and where it knocks to reach one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prover {
    /// The probe's source address; no other outsider has it.
    pub source: IpAddr,
    /// The node's end of the probe's link. Port N of it leads to endpoint N - 1.
    pub gate: IpAddr,
}

/// What stands still between two changes of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub table: String,
    pub family: Family,
    /// Range of all outsider probes of this family.
    pub outsiders: &'static str,
    pub prover: Option<Prover>,
    /// How many pairs there are.
    pub pairs: usize,
    /// externalTrafficPolicy Local: the client's address is kept.
    pub keep_client: bool,
    /// sessionAffinity ClientIP.
    pub by_client: bool,
}

/// What acts for the next [`LEASE`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    /// Public addresses that lead straight to endpoints.
    pub kernel: Vec<Way>,
    /// Public addresses that lead to the listener.
    pub listener: Vec<Way>,
    /// All ways of the forward: outsider probes are turned away there, and ours may try the kernel's path.
    pub all: Vec<Way>,
    /// Endpoints to try one by one: the first by port 1 of the gate, and so on.
    pub each: Vec<SocketAddr>,
    /// Pairs whose slots lead somewhere, by family.
    pub filled: BTreeSet<(Family, usize)>,
}

/// The table's name for a forward's id.
pub fn table_name(id: &str) -> String {
    let plain: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(200).collect();
    format!("{TABLE_PREFIX}{plain}")
}

impl Layout {
    /// The table with empty sets, in the place of any former one.
    pub fn ruleset(&self) -> String {
        let Self { table, outsiders, .. } = self;
        let (ip, address) = self.family.words();
        let mut text = format!("add table {ip} {table}\ndelete table {ip} {table}\ntable {ip} {table} {{\n");
        let mut line = |words: String| text.push_str(&format!("    {words}\n"));
        line(format!("comment \"{COMMENT}\""));
        for (map, key, value) in [
            ("kernel", format!("{address} . inet_service"), "verdict".to_owned()),
            ("proven", format!("{address} . inet_service"), "verdict".to_owned()),
            ("front", format!("{address} . inet_service"), format!("{address} . inet_service")),
            ("each", "inet_service".to_owned(), format!("{address} . inet_service")),
        ] {
            line(format!("map {map} {{\n        type {key} : {value}\n        flags timeout\n    }}"));
        }
        line(format!("set shield {{\n        type {address} . inet_service\n        flags timeout\n    }}"));
        let mark = if self.keep_client { String::new() } else { format!("ct mark set ct mark or {MARK:#x}\n        ") };
        for pair in 0..self.pairs {
            // So many slots, not one for each endpoint: a new set changes elements only, never a rule.
            let slot = if self.by_client { format!("jhash {ip} saddr") } else { "numgen random".to_owned() };
            line(format!("counter pair_{pair} {{\n    }}"));
            line(format!(
                "map slots_{pair} {{\n        typeof numgen random mod {SLOTS} : {ip} daddr . tcp dport\n    }}"
            ));
            let seed = if self.by_client { format!(" seed {SEED:#x}") } else { String::new() };
            line(format!(
                "chain way_{pair} {{\n        {mark}meta l4proto tcp dnat {ip} to {slot} mod {SLOTS}{seed} map @slots_{pair}\n    }}"
            ));
            line(format!("chain pair_{pair} {{\n        counter name pair_{pair}\n        goto way_{pair}\n    }}"));
        }
        // What our own probe does not find leased must not go on to kube-proxy and come back as a proof.
        let proving = self.prover.map_or_else(String::new, |Prover { source, gate }| {
            format!(
                "{ip} saddr != {source} return\n        {ip} daddr . tcp dport vmap @proven\n        {ip} daddr != {gate} drop\n        {mark}meta l4proto tcp dnat {ip} to tcp dport map @each\n        drop"
            )
        });
        line(format!("chain outsiders {{\n        {proving}\n    }}"));
        let lead = format!(
            "{ip} daddr . tcp dport vmap @kernel\n        meta l4proto tcp dnat {ip} to {ip} daddr . tcp dport map @front"
        );
        // -110: before kube-proxy's dstnat (-100); its own filter in INPUT sits at 0 (iptables) or -110 (nftables).
        line(format!(
            "chain prerouting {{\n        type nat hook prerouting priority -110; policy accept;\n        {ip} saddr {outsiders} goto outsiders\n        {lead}\n    }}"
        ));
        line(format!(
            "chain output {{\n        type nat hook output priority -110; policy accept;\n        {lead}\n    }}"
        ));
        // Before kube-proxy's srcnat (100).
        line(format!(
            "chain postrouting {{\n        type nat hook postrouting priority 90; policy accept;\n        ct mark and {MARK:#x} == {MARK:#x} masquerade\n    }}"
        ));
        line(format!(
            "chain input {{\n        type filter hook input priority -120; policy accept;\n        {ip} saddr {outsiders} {ip} daddr . tcp dport @shield reject with tcp reset\n    }}"
        ));
        text.push_str("}\n");
        text
    }

    /// Puts endpoints in a pair's slots, all at once.
    pub fn slots(&self, pair: usize, slots: &Slots) -> String {
        let (ip, _) = self.family.words();
        let mut text = format!("flush map {ip} {} slots_{pair}\n", self.table);
        let filled: Vec<String> = slots.iter().map(|(slot, to)| format!("{slot} : {}", element(to))).collect();
        if !filled.is_empty() {
            let _ = writeln!(text, "add element {ip} {} slots_{pair} {{ {} }}", self.table, filled.join(", "));
        }
        text
    }

    /// Renewal is to take everything out and put it back in, in one transaction: adding an element that is there does
    /// not renew it, and deleting one that has expired would fail.
    pub fn leases(&self, leases: &Leases) -> String {
        let (ip, _) = self.family.words();
        let mut text = String::new();
        let mut lease = |kind: &str, name: &str, elements: Vec<String>| {
            let _ = writeln!(text, "flush {kind} {ip} {} {name}", self.table);
            if !elements.is_empty() {
                let _ = writeln!(text, "add element {ip} {} {name} {{ {} }}", self.table, elements.join(", "));
            }
        };
        let timeout = format!("timeout {}s", LEASE.as_secs());
        let own = |ways: &[Way]| -> Vec<Way> {
            ways.iter().filter(|w| Family::of(w.public.ip()) == self.family).copied().collect()
        };
        let to_chain = |way: &Way, chain: &str| format!("{} {timeout} : {chain}_{}", element(way.public), way.pair);
        lease("map", "kernel", own(&leases.kernel).iter().map(|w| to_chain(w, "goto pair")).collect());
        let tried = own(&leases.all)
            .into_iter()
            .filter(|w| self.prover.is_some() && leases.filled.contains(&(self.family, w.pair)));
        lease("map", "proven", tried.map(|w| to_chain(&w, "jump way")).collect());
        let lead = |w: &Way| format!("{} {timeout} : {}", element(w.public), element(w.private));
        lease("map", "front", own(&leases.listener).iter().map(lead).collect());
        let each = leases.each.iter().enumerate().filter(|(_, to)| Family::of(to.ip()) == self.family);
        lease("map", "each", each.map(|(at, to)| format!("{} {timeout} : {}", at + 1, element(*to))).collect());
        let hidden = own(&leases.all).into_iter().flat_map(|w| [w.public, w.private]);
        lease("set", "shield", hidden.map(|socket| format!("{} {timeout}", element(socket))).collect());
        text
    }
}

/// An address and port as nft writes a concatenation.
fn element(socket: SocketAddr) -> String {
    format!("{} . {}", socket.ip(), socket.port())
}

/// Packets of each pair's counter in what `nft list counters` prints: one for each connection.
pub fn counted(listing: &str, pairs: usize) -> Vec<u64> {
    let mut counts = vec![0; pairs];
    let mut pair = None;
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("counter pair_") {
            pair = name.split(' ').next().and_then(|n| n.parse::<usize>().ok());
        } else if let Some(rest) = line.strip_prefix("packets ") {
            let packets = rest.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
            if let Some(count) = pair.take().and_then(|p| counts.get_mut(p)) {
                *count += packets;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(public: &str, private: &str, pair: usize) -> Way {
        Way { public: public.parse().expect("written here"), private: private.parse().expect("written here"), pair }
    }

    fn layout(family: Family) -> Layout {
        let (source, gate, outsiders) = match family {
            Family::V4 => ("198.18.0.3", "198.18.0.1", "198.18.0.0/15"),
            Family::V6 => ("2001:2::3", "2001:2::1", "2001:2::/48"),
        };
        let prover = Prover { source: source.parse().expect("an address"), gate: gate.parse().expect("an address") };
        Layout {
            table: table_name("x"),
            family,
            outsiders,
            prover: Some(prover),
            pairs: 1,
            keep_client: false,
            by_client: false,
        }
    }

    #[test]
    fn a_table_has_a_name_that_nft_takes() {
        assert_eq!(table_name("bookinfo-productpage.v1-30080-3f9c"), "bookaccess_bookinfo_productpage_v1_30080_3f9c");
    }

    #[test]
    fn a_ruleset_of_each_family() {
        insta::assert_snapshot!("ruleset_v4", layout(Family::V4).ruleset());
        insta::assert_snapshot!(
            "ruleset_v6_local_by_client",
            Layout { keep_client: true, by_client: true, ..layout(Family::V6) }.ruleset()
        );
    }

    #[test]
    fn a_client_that_is_kept_is_never_marked() {
        let kept = Layout { keep_client: true, ..layout(Family::V4) }.ruleset();
        assert!(!kept.contains("mark set"), "{kept}");
    }

    #[test]
    fn leases_lead_to_endpoints_to_the_listener_and_hide_it() {
        let (kernel, listener) =
            (way("10.0.0.1:30080", "10.0.0.1:40000", 0), way("10.0.0.2:30080", "10.0.0.2:40001", 0));
        let sixth = way("[fd00::1]:30080", "[fd00::1]:40000", 0);
        let leases = Leases {
            kernel: vec![kernel],
            listener: vec![listener],
            all: vec![kernel, listener, sixth],
            each: vec!["10.244.0.5:9080".parse().expect("a socket"), "[fd00:1::5]:9080".parse().expect("a socket")],
            filled: BTreeSet::from([(Family::V4, 0)]),
        };
        insta::assert_snapshot!("leases_v4", layout(Family::V4).leases(&leases));
        insta::assert_snapshot!("leases_v6", layout(Family::V6).leases(&leases));
        // Behind: nothing but the hiding.
        let behind = Leases { all: vec![kernel], ..Leases::default() };
        assert!(!layout(Family::V4).leases(&behind).contains(" : "));
    }

    #[test]
    fn counters_are_read_by_pair() {
        let listing = "table ip bookaccess_x {\n\tcounter pair_0 {\n\t\tpackets 7 bytes 420\n\t}\n\tcounter pair_1 {\n\t\tpackets 3 bytes 1\n\t}\n}\ntable ip6 bookaccess_x {\n\tcounter pair_0 {\n\t\tpackets 2 bytes 1\n\t}\n}\n";
        assert_eq!(counted(listing, 2), [9, 3]);
    }
}
