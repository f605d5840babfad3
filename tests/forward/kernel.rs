//! The kernel carrier between a stranger, a node and pods, each in a network namespace of its own. Needs root,
//! `unshare`, `ip`, `nft` and `conntrack`; says so and ends where one is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bookaccess::forward::endpoints::{Backend, Endpoint};
use bookaccess::forward::jhash::{jhash, scale};
use bookaccess::forward::slots::{SEED, SLOTS, Slots, slot_of};
use e2e::apiserver::Api;
use serde_json::json;

use super::Place;
use super::net::{Host, Pod, inside, nft, ruleset, run, until};

const NODE: &str = "10.9.0.1";
const STRANGER: &str = "10.9.0.2";
const STRANGER_V6: &str = "fd09::2";
const PUBLIC_V6: SocketAddr = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1)), 30080);
const PUBLIC: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1)), 30080);

/// The node with kube-proxy's rules for another port, a stranger beside it, and a forward to these pods.
struct World {
    place: Place,
    stranger: Host,
    pods: Vec<Pod>,
}

impl World {
    fn new(pods: u8) -> Self {
        run("ip link set lo up");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let ends = [("10.9.0.1/24", "10.9.0.2/24"), ("fd09::1/64", "fd09::2/64")];
        let stranger = Host::join("eth1", &ends);
        let pods: Vec<Pod> = (1..=pods).map(Pod::start).collect();
        let place = Place::of(Api::start_at(NODE, pods[0].v4));
        let world = Self { place, stranger, pods };
        world.have(&(0..world.pods.len()).collect::<Vec<_>>());
        // kube-proxy: another Service's NodePort, not masqueraded (Local), and stale rules for ours.
        nft(&format!(
            "table ip proxy {{
                chain prerouting {{ type nat hook prerouting priority -100
                    ip daddr {NODE} tcp dport 30300 dnat to {}
                    ip daddr {NODE} tcp dport 30080 dnat to 10.244.99.99:1
                }}
                chain output {{ type nat hook output priority -100; }}
                chain postrouting {{ type nat hook postrouting priority 100; }}
                chain input {{ type nat hook input priority 100; }}
            }}
            table ip6 proxy {{
                chain prerouting {{ type nat hook prerouting priority -100; }}
                chain postrouting {{ type nat hook postrouting priority 100; }}
            }}\n",
            world.pods[0].v4
        ));
        world
    }

    /// The Service's pods are these, in both families, on this node.
    fn have(&self, pods: &[usize]) {
        let all: Vec<SocketAddr> = pods.iter().flat_map(|at| [self.pods[*at].v4, self.pods[*at].v6]).collect();
        self.place.api.set_pods_on("cp1", &all);
    }

    fn start(&self, more: &str) {
        self.place.ok(&format!("forward start svc/productpage 30080:http --mode kernel {more}"));
        self.carried();
    }

    fn carried(&self) {
        // The rules themselves; a status may be a second old.
        until("carried by the kernel", || ruleset().contains(" : goto pair_0"));
    }

    fn by_listener(&self, reason: &str) {
        self.place.until(reason, |s| s["kernel"]["reason"] == reason);
    }

    fn ask(&self) -> std::io::Result<String> {
        self.stranger.ask(PUBLIC)
    }

    /// Which pod answers each of these clients.
    fn answers(&self, clients: &[IpAddr]) -> BTreeMap<IpAddr, String> {
        let answer = |client: &IpAddr| {
            let to = if client.is_ipv4() { PUBLIC } else { PUBLIC_V6 };
            let answer = self.stranger.ask_from(*client, to).unwrap();
            (*client, answer.split(' ').next().unwrap().to_owned())
        };
        clients.iter().map(answer).collect()
    }

    /// Which of these pods the slots give each of these clients.
    fn by_slots(&self, pods: &[usize], clients: &[IpAddr]) -> BTreeMap<IpAddr, String> {
        let backend = |socket: SocketAddr| {
            let uid = Some(socket.to_string());
            Endpoint { ip: socket.ip(), port: socket.port(), pod: None, uid }.backend()
        };
        let answer = |client: &IpAddr| {
            let of_family = |at: usize| if client.is_ipv4() { self.pods[at].v4 } else { self.pods[at].v6 };
            let backends: Vec<Backend> = pods.iter().map(|at| backend(of_family(*at))).collect();
            let socket = Slots::by_client(&backends).at(slot_of(*client)).unwrap().socket;
            let at = pods.iter().find(|at| of_family(**at) == socket).unwrap();
            (*client, format!("pod{}", at + 1))
        };
        clients.iter().map(answer).collect()
    }
}

#[test]
fn the_kernel_carries_and_masquerades_its_own_connections_only() {
    if !inside("kernel::the_kernel_carries_and_masquerades_its_own_connections_only") {
        return;
    }
    let world = World::new(1);
    world.start("--address 10.9.0.1,fd09::1");
    let gate = &world.pods[0].gate;
    assert_eq!(world.ask().unwrap(), format!("pod1 {gate}"));
    let v6 = world.stranger.ask("[fd09::1]:30080".parse().unwrap()).unwrap();
    assert_eq!(v6, "pod1 fd44:1::1");
    // kube-proxy's own connections beside ours keep their client.
    assert_eq!(world.stranger.ask("10.9.0.1:30300".parse().unwrap()).unwrap(), format!("pod1 {STRANGER}"));
    let before = world.place.status();
    assert_eq!(before["total"], 0, "the listener was asked: {before:#}");
    for _ in 0..5 {
        world.ask().unwrap();
    }
    let counted = |s: &serde_json::Value| s["kernel"]["connections"][0].as_u64().unwrap_or(0);
    world.place.until("counted", |s| counted(s) == 7);
    // From the node itself as well.
    let own = std::net::TcpStream::connect_timeout(&PUBLIC, Duration::from_secs(1));
    assert!(own.is_ok(), "{own:?}");
    world.place.until("counted from the node", |s| counted(s) == 8);
    world.place.ok("forward stop");
    assert!(!ruleset().contains("bookaccess"), "{}", ruleset());
}

#[test]
fn with_policy_local_the_client_is_kept_and_without_a_local_pod_the_listener_answers() {
    if !inside("kernel::with_policy_local_the_client_is_kept_and_without_a_local_pod_the_listener_answers") {
        return;
    }
    let world = World::new(2);
    world.place.api.set_spec("externalTrafficPolicy", json!("Local"));
    world.start("--address 10.9.0.1,fd09::1");
    let answer = world.ask().unwrap();
    assert!(answer.ends_with(STRANGER), "{answer}");
    let v6 = world.stranger.ask("[fd09::1]:30080".parse().unwrap()).unwrap();
    assert!(v6.ends_with(STRANGER_V6), "{v6}");
    world.place.api.set_pods_on("w1", &[world.pods[1].v4]);
    world.by_listener("noEndpoint");
    assert_eq!(world.ask().unwrap(), format!("pod2 {}", world.pods[1].gate));
    world.place.until("counted by the listener", |s| s["total"] == 1);
    // The policy changes while it runs.
    world.place.api.set_spec("externalTrafficPolicy", json!("Cluster"));
    world.carried();
    assert_eq!(world.ask().unwrap(), format!("pod2 {}", world.pods[1].gate));
}

#[test]
fn an_open_connection_survives_changes_of_pods_restarts_and_the_stop() {
    if !inside("kernel::an_open_connection_survives_changes_of_pods_restarts_and_the_stop") {
        return;
    }
    let world = World::new(2);
    world.have(&[0]);
    world.start("");
    let mut open = world.stranger.connect(PUBLIC).unwrap();
    let first = open.ask().unwrap();
    world.have(&[1]);
    world.carried();
    until("led to the new pod", || world.ask().is_ok_and(|a| a.starts_with("pod2 ")));
    assert_eq!(open.ask().unwrap(), first);
    world.place.ok("forward restart");
    world.carried();
    assert_eq!(open.ask().unwrap(), first);
    world.place.ok("forward stop");
    assert_eq!(open.ask().unwrap(), first);
    assert!(!ruleset().contains("bookaccess"), "{}", ruleset());
    assert!(world.ask().is_err(), "kube-proxy's stale rules lead nowhere");
}

#[test]
fn nothing_acts_three_seconds_after_the_process_died_or_stuck() {
    if !inside("kernel::nothing_acts_three_seconds_after_the_process_died_or_stuck") {
        return;
    }
    let world = World::new(1);
    world.start("");
    // Whether any rule of ours still acts; the table itself is inert without leases.
    let acts = || ruleset().contains("expires");
    for (how, back) in [("STOP", Some("CONT")), ("KILL", None)] {
        let pid = world.place.pid();
        run(&format!("kill -{how} {pid}"));
        let then = Instant::now();
        assert!(world.ask().is_ok(), "the leases are gone at once after {how}");
        until("without leases", || !acts());
        assert!(then.elapsed() < Duration::from_millis(3_500), "{how}: {:?}", then.elapsed());
        assert!(world.ask().is_err(), "something acts after {how}");
        match back {
            Some(signal) => run(&format!("kill -{signal} {pid}")),
            None => drop(world.place.ok("forward restart")),
        }
        world.carried();
        assert!(world.ask().is_ok());
    }
}

#[test]
fn a_closed_forward_chain_leads_to_the_listener_and_back() {
    if !inside("kernel::a_closed_forward_chain_leads_to_the_listener_and_back") {
        return;
    }
    let world = World::new(2);
    world.start("");
    nft("table ip wall { chain forward { type filter hook forward priority 0; policy drop; }; }");
    let closed = Instant::now();
    until("answered in spite of it", || world.ask().is_ok());
    assert!(closed.elapsed() < Duration::from_secs(3), "{:?}", closed.elapsed());
    world.by_listener("pathFails");
    for _ in 0..10 {
        world.ask().unwrap();
    }
    run("nft delete table ip wall");
    world.carried();
    // One pod only: the other goes on.
    nft(&format!(
        "table ip wall {{ chain forward {{ type filter hook forward priority 0; ip daddr {} drop; }}; }}",
        world.pods[0].v4.ip()
    ));
    world.place.until("only one proven", |s| s["kernel"]["proven"] == 1 && s["kernel"]["carrying"] == true);
    for _ in 0..10 {
        assert!(world.ask().unwrap().starts_with("pod2 "));
    }
}

#[test]
fn a_client_stays_with_its_pod_where_the_service_says_so() {
    if !inside("kernel::a_client_stays_with_its_pod_where_the_service_says_so") {
        return;
    }
    let world = World::new(3);
    world.start("");
    let name = |answer: String| answer.split(' ').next().unwrap().to_owned();
    let spread: BTreeSet<String> = (0..60).map(|_| name(world.ask().unwrap())).collect();
    assert_eq!(spread.len(), 3, "{spread:?}");
    world.place.api.set_spec("sessionAffinity", json!("ClientIP"));
    until("by client", || ruleset().contains("jhash"));
    world.carried();
    let own = name(world.ask().unwrap());
    for _ in 0..30 {
        assert_eq!(name(world.ask().unwrap()), own);
    }
    // Another pod goes: nothing changes for this client.
    let others: Vec<usize> = (0..3).filter(|at| format!("pod{}", at + 1) != own).collect();
    let kept: Vec<usize> = (0..3).filter(|at| *at != others[0]).collect();
    world.have(&kept);
    world.place.until("noticed", |s| s["kernel"]["proven"] == 2 && s["kernel"]["carrying"] == true);
    for _ in 0..10 {
        assert_eq!(name(world.ask().unwrap()), own);
    }
}

/// Many addresses of both families.
fn clients(count: u8) -> Vec<IpAddr> {
    let v4 = (1..=count).map(|host| IpAddr::from([10, 88, 0, host]));
    let v6 =
        (1..=count).map(|host| IpAddr::from([0xfd88, 0, 0, 0, 0x5054, 0xff, u16::from(host) * 77, u16::from(host)]));
    v4.chain(v6).collect()
}

#[test]
fn the_kernel_hashes_as_we_do() {
    if !inside("kernel::the_kernel_hashes_as_we_do") {
        return;
    }
    run("ip link set lo up");
    run("ip -4 route add local 10.88.0.0/24 dev lo");
    run("ip -6 route add local fd88::/64 dev lo");
    std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
    let clients = clients(200);
    // A power of two could hide how the hash is brought down to the number of slots.
    for modulus in [SLOTS as u32, 1000] {
        let chain = |ip: &str| {
            format!(
                "set seen_{ip} {{
                    typeof {ip} saddr . meta mark
                    flags dynamic
                    size 65535
                }}
                chain see_{ip} {{
                    type filter hook output priority 0
                    meta l4proto udp meta mark set jhash {ip} saddr mod {modulus} seed {SEED:#x} add @seen_{ip} {{ {ip} saddr . meta mark }}
                }}\n"
            )
        };
        for family in ["ip", "ip6"] {
            let table = format!("table {family} hash");
            nft(&format!("add {table}\ndelete {table}\n{table} {{\n{}}}\n", chain(family)));
        }
        for client in &clients {
            let socket = UdpSocket::bind((*client, 0)).unwrap();
            socket.send_to(b"x", (*client, 9)).unwrap();
        }
        let listing = ruleset();
        for client in &clients {
            let ours = match client {
                IpAddr::V4(ip) => scale(jhash(&ip.octets(), SEED), modulus),
                IpAddr::V6(ip) => scale(jhash(&ip.octets(), SEED), modulus),
            };
            assert!(listing.contains(&format!(" {client} . {ours:#010x}")), "{client}: {ours:#010x} {listing}");
            assert!(modulus != SLOTS as u32 || slot_of(*client) == ours as usize);
        }
    }
}

#[test]
fn the_rules_and_the_listener_lead_each_client_alike() {
    if !inside("kernel::the_rules_and_the_listener_lead_each_client_alike") {
        return;
    }
    let world = World::new(3);
    for (network, own) in [("10.88.0.0/24", STRANGER), ("fd88::/64", STRANGER_V6)] {
        world.stranger.be(network);
        run(&format!("ip route add {network} via {own}"));
    }
    world.place.api.set_spec("sessionAffinity", json!("ClientIP"));
    world.start("--address 10.9.0.1,fd09::1");
    let both = || until("both families carried", || ruleset().matches(" : goto pair_0").count() == 2);
    let clients = clients(50);
    let own = world.by_slots(&[0, 1, 2], &clients);
    assert_eq!(own.values().collect::<BTreeSet<_>>().len(), 3, "{own:?}");
    both();
    assert_eq!(world.answers(&clients), own);
    assert_eq!(world.place.status()["total"], 0, "the listener was asked");
    // The kernel's path breaks.
    nft("table inet wall { chain forward { type filter hook forward priority 0; policy drop; }; }");
    world.by_listener("pathFails");
    assert_eq!(world.answers(&clients), own);
    world.place.until("answered by the listener", |s| s["total"].as_u64() >= Some(clients.len() as u64));
    run("nft delete table inet wall");
    both();
    assert_eq!(world.answers(&clients), own);
    // Another process.
    world.place.ok("forward restart");
    assert_eq!(world.answers(&clients), own);
    both();
    assert_eq!(world.answers(&clients), own);
    // A pod goes: the listener takes over for a while, and only its clients are led elsewhere.
    let left = world.by_slots(&[0, 2], &clients);
    assert!(own.iter().all(|(client, pod)| pod == "pod2" || left[client] == *pod));
    world.have(&[0, 2]);
    world.by_listener("changing");
    assert_eq!(world.answers(&clients), left);
    both();
    assert_eq!(world.answers(&clients), left);
}

#[test]
fn two_forwards_a_flushed_ruleset_and_somebody_elses_table() {
    if !inside("kernel::two_forwards_a_flushed_ruleset_and_somebody_elses_table") {
        return;
    }
    let world = World::new(1);
    world.start("");
    // All addresses: the rules are for those that the cluster knows the node by.
    world.place.ok("forward start svc/productpage 30081:http --mode kernel --address 0.0.0.0");
    let second: SocketAddr = "10.9.0.1:30081".parse().unwrap();
    let both = || ruleset().matches(" : goto pair_0").count() >= 2;
    until("both carried", both);
    assert!(world.ask().is_ok() && world.stranger.ask(second).is_ok());
    // Somebody flushes everything.
    run("nft flush ruleset");
    let flushed = Instant::now();
    until("both again", both);
    assert!(flushed.elapsed() < Duration::from_secs(2), "{:?}", flushed.elapsed());
    assert!(world.ask().is_ok() && world.stranger.ask(second).is_ok());
    // One stops, the other goes on.
    let table = ruleset().lines().find(|l| l.contains("30081")).unwrap().split_whitespace().nth(2).unwrap().to_owned();
    let id = world.place.file("30081-firs.json").file_stem().unwrap().to_str().unwrap().to_owned();
    world.place.ok(&format!("forward stop {id}"));
    assert!(!ruleset().contains(&table));
    assert!(world.ask().is_ok());
    // Its name is taken by a table that is not ours.
    nft(&format!("table ip {table} {{ chain theirs {{ }}; }}"));
    world.place.ok("forward start svc/productpage 30081:http --mode kernel --address 0.0.0.0");
    let occupied = world.place.run(&format!("forward status {id} -o json"));
    let occupied: serde_json::Value = serde_json::from_slice(&occupied.stdout).unwrap();
    assert_eq!(occupied["items"][0]["kernel"]["reason"], "tableOccupied", "{occupied:#}");
    assert!(ruleset().contains("chain theirs"), "their table was touched");
    assert!(world.stranger.ask(second).is_ok(), "the listener answers by itself");
}

#[test]
fn without_nft_or_an_address_it_says_so() {
    if !inside("kernel::without_nft_or_an_address_it_says_so") {
        return;
    }
    let world = World::new(1);
    let line = "forward start svc/productpage 30080:http --mode kernel";
    let empty = tempfile::tempdir().unwrap();
    let refused = world.place.command(line).env("PATH", empty.path()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("nft is missing"), "{said}");
    let refused = world.place.run("forward start svc/productpage 30080:http --mode kernel --address 127.0.0.1");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("not localhost"), "{said}");
}
