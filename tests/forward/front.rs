//! The rules that lead a NodePort to the listener, in a network namespace of the test's own. Needs root, `unshare`, `ip`
//! and `nft`; says so and ends where one is missing.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::apiserver::Api;

use super::net::{inside, nft, ruleset, run, until};
use super::{Place, page_at};

pub const NODE: &str = "10.9.0.1";
pub const PORT: u16 = 30080;
pub const PAGE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<title>Simple Bookstore App</title>";

/// kube-proxy's rule for the NodePort, leading wherever we say.
fn node_port_leads_to(backend: &str) {
    let chain = |hook: &str| {
        format!(
            "chain {hook} {{ type nat hook {hook} priority {}; ip daddr {NODE} tcp dport {PORT} dnat to {backend}; }}\n",
            -100
        )
    };
    nft(&format!(
        "add table ip proxy\ndelete table ip proxy\ntable ip proxy {{\n{}{}}}\n",
        chain("prerouting"),
        chain("output")
    ));
}

/// A node with an address, its API server and a page. The forward keeps its rules at `front`.
pub fn node(front: &str) -> (Place, SocketAddr) {
    run("ip link set lo up");
    run("ip link add d0 type veth peer name d1");
    run(&format!("ip addr add {NODE}/24 dev d0"));
    run("ip link set d0 up");
    run("ip link set d1 up");
    let page = page_at(NODE, PAGE);
    node_port_leads_to("10.9.0.99:1");
    let place = Place::of(Api::start_at(NODE, page));
    place.ok(&format!("forward start svc/productpage {PORT}:http --mode direct --front"));
    let record = place.file("-firs.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"always\"", &format!("\"{front}\""))).unwrap();
    place.ok("forward restart");
    (place, page)
}

/// Whether the page answers on the NodePort.
fn answers() -> bool {
    let address = format!("{NODE}:{PORT}").parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

#[test]
fn rules_lead_around_stale_ones_and_die_with_their_process() {
    if !inside("front::rules_lead_around_stale_ones_and_die_with_their_process") {
        return;
    }
    let (place, _) = node("always");
    assert!(answers(), "the front does not lead to the listener");
    assert!(ruleset().contains("expires"), "the rules are no leases: {}", ruleset());
    let killed = Command::new("kill").args(["-9", &place.pid()]).status().unwrap();
    assert!(killed.success());
    let died = Instant::now();
    until("without leases", || !ruleset().contains("expires"));
    assert!(died.elapsed() < Duration::from_secs(5), "the leases outlived their process");
    place.ok("forward restart");
    assert!(answers(), "the front does not come back");
    place.ok("forward stop");
    assert!(!ruleset().contains("bookaccess"), "{}", ruleset());
}

#[test]
fn a_standby_steps_in_when_the_node_port_fails_and_back_when_it_works() {
    if !inside("front::a_standby_steps_in_when_the_node_port_fails_and_back_when_it_works") {
        return;
    }
    let (place, page) = node("standby");
    // The first probe decides before the command returns, and is not deceived by our own listener.
    assert_eq!(place.status()["position"], "front");
    assert!(answers());
    node_port_leads_to(&page.to_string());
    place.until("behind", |s| s["position"] == "behind");
    node_port_leads_to("10.9.0.99:1");
    place.until("in front", |s| s["position"] == "front");
    assert!(answers());
    place.ok("forward stop");
    assert!(!ruleset().contains("bookaccess"), "{}", ruleset());
}
