//! Reads this node's devices, routes and the kernel's count of packets with no way back.

use std::net::IpAddr;

use serde_json::Value;

use super::program::{json, output};
use crate::model::{Device, GapReason, Route};

/// More routes than one for each node of the largest clusters.
const MOST_ROUTES: usize = 10_000;

/// Devices that are up with their addresses, loopback left out.
///
/// # Errors
/// The program `ip` is missing or fails.
pub fn devices() -> Result<Vec<Device>, GapReason> {
    Ok(devices_of(&json(&output("ip", &["-j", "addr", "show", "up"])?)?))
}

/// The routes of all tables as `ip` lists them.
///
/// # Errors
/// The program `ip` is missing or fails.
pub fn all_routes() -> Result<Value, GapReason> {
    json(&output("ip", &["-j", "route", "show", "table", "all"])?)
}

/// The routing tables that rules send packets to, by number or name.
pub fn rule_tables() -> Vec<String> {
    let listing = output("ip", &["-j", "rule", "show"]).and_then(|text| json(&text)).unwrap_or_default();
    let rules = listing.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    rules.filter_map(|r| r.get("table")?.as_str().map(str::to_owned)).collect()
}

fn devices_of(listing: &Value) -> Vec<Device> {
    let devices = listing.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    devices
        .filter_map(|d| {
            let name = d.get("ifname")?.as_str().filter(|n| *n != "lo")?.to_owned();
            let mtu = d.get("mtu").and_then(Value::as_u64).and_then(|m| u32::try_from(m).ok()).unwrap_or_default();
            let addresses = d.get("addr_info").and_then(Value::as_array).into_iter().flatten();
            let addresses = addresses.filter_map(|a| a.get("local")?.as_str()?.parse().ok());
            Some(Device { name, mtu, addresses: addresses.collect() })
        })
        .collect()
}

/// Whether a route of a listing leads to other machines. Others keep packets here or drop them: local, blackhole and the
/// like (ip-route(8)); a type that is not said is unicast.
pub fn leads_on(route: &Value) -> bool {
    route.get("type").and_then(Value::as_str).is_none_or(|kind| kind == "unicast")
}

/// The main table's routes to somewhere, of a listing of all tables.
pub fn main_routes(listing: &Value) -> Vec<Route> {
    let routes = listing.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let text = |r: &Value, name: &str| r.get(name).and_then(Value::as_str).map(str::to_owned);
    routes
        .filter(|r| text(r, "table").is_none_or(|t| t == "main"))
        .filter(|r| leads_on(r))
        .filter_map(|r| {
            let via = text(r, "gateway").and_then(|g| g.parse::<IpAddr>().ok());
            Some(Route { to: text(r, "dst")?, via, device: text(r, "dev")? })
        })
        .take(MOST_ROUTES)
        .collect()
}

/// Packets that the kernel dropped because an answer would not go out where they came in.
pub fn reverse_path_drops() -> Option<u64> {
    count_in(&std::fs::read_to_string("/proc/net/netstat").ok()?, "IPReversePathFilter")
}

/// A counter of `/proc/net/netstat`: names in one line, their values in the next.
fn count_in(netstat: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = netstat.lines().collect();
    lines.chunks(2).find_map(|pair| {
        let at = pair.first()?.split_whitespace().position(|w| w == name)?;
        pair.get(1)?.split_whitespace().nth(at)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn routes_and_devices_are_taken_from_what_ip_prints() {
        let routes = main_routes(&json!([
            {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0", "flags": []},
            {"dst": "10.244.1.0/24", "gateway": "10.0.0.11", "dev": "eth0", "flags": []},
            {"type": "local", "dst": "10.0.0.10", "dev": "eth0", "table": "local"},
            {"type": "blackhole", "dst": "10.9.0.0/16", "flags": []}]));
        let seen: Vec<String> = routes.iter().map(|r| format!("{} {} {:?}", r.to, r.device, r.via.is_some())).collect();
        assert_eq!(seen, ["default eth0 true", "10.244.1.0/24 eth0 true"]);
        let devices = devices_of(&json!([{"ifname": "lo", "mtu": 65536}, {"ifname": "eth0", "mtu": 1500,
            "addr_info": [{"family": "inet", "local": "10.0.0.10", "prefixlen": 24}]}]));
        assert_eq!(devices, [Device { name: "eth0".into(), mtu: 1500, addresses: vec![IpAddr::from([10, 0, 0, 10])] }]);
    }

    #[test]
    fn a_counter_stands_below_its_name() {
        let text = "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 0 12\nIpExt: InNoRoutes\nIpExt: 3\n";
        assert_eq!(count_in(text, "IPReversePathFilter"), Some(12));
        assert_eq!(count_in(text, "InNoRoutes"), Some(3));
        assert_eq!(count_in(text, "Nothing"), None);
    }
}
