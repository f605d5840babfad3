//! BA4007: the kernel drops packets that come in by another device than the one an answer would leave by.

use crate::check::{Check, Hop, field};
use crate::facts::{Facts, TargetFacts};
use crate::model::firewall::Counted;
use crate::model::{ActionName, Code, Confidence, Device, Evidence, Finding, Host, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(4007),
    slug: "reverse-path-filter",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::NodeSettings],
    either: &[],
    remedies: &[ActionName::SetKernel],
    explains: &[Code(4004), Code(5011), Code(5012)],
    run,
};

/// What a connection attempt that is tried again costs: fewer drops than this may be anybody's stray packets.
const ATTEMPT: u64 = 3;
/// Devices of containers and of virtual machines, which no packet from elsewhere comes in by first.
const INNER: [&str; 11] = ["ba", "br-", "cali", "cilium", "cni", "docker", "flannel", "lxc", "tunl", "veth", "virbr"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let here = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n));
    let (Some(node), Some(host)) = (here, &facts.snapshot.host) else { return Vec::new() };
    let Some(drops) = host.reverse_path_drops.filter(|_| target.exposed().is_some()) else { return Vec::new() };
    let strict: Vec<&Device> = host.devices.iter().filter(|d| is_outer(d) && is_strict(host, d)).collect();
    let default = host.routes.iter().find(|r| r.to == "default").map(|r| r.device.as_str());
    let second = strict.iter().find(|d| Some(d.name.as_str()) != default);
    let fails = target.stuck().is_some() && target.reach.answers == Some(false);
    let rose = drops.rose() == Some(true);
    let total = drops.after.unwrap_or(drops.before);
    // A stranger's packet to the second device's address comes in by it, whatever the probe's own packet does.
    let dialled = target.reach.address.map(|a| a.ip);
    let (device, severity) = match (second, strict.first()) {
        (Some(device), _) if fails && rose => (device, Severity::Error),
        (None, Some(device)) if fails && rose => (device, Severity::Error),
        (Some(device), _) if total >= ATTEMPT && dialled.is_some_and(|ip| device.addresses.contains(&ip)) => {
            (device, Severity::Error)
        }
        (Some(device), _) if total >= ATTEMPT => (device, Severity::Warning),
        _ => return Vec::new(),
    };
    let object = ObjectRef::cluster("Node", node);
    let setting = name(&device.name);
    let own = host.sysctls.get(&setting).map(String::as_str).unwrap_or_default();
    let effective = if own == "1" { setting.clone() } else { name("all") };
    let found = check.found(target, object.clone()).with("node", node).with("device", &device.name).severity(severity);
    // The greater of the two settings counts: 2 for the device makes it loose whatever is set for all.
    let found = found.with("setting", &setting).with("from", own).with("to", "2").with("count", total);
    let found = found.because(field(&object, effective, "1"));
    let counted =
        Evidence::Field { object, path: "TcpExt.IPReversePathFilter".to_owned(), value: counted(drops).into() };
    vec![found.because(counted).because_of(target.reach.failure())]
}

fn counted(drops: Counted) -> String {
    let after = drops.after.filter(|after| *after != drops.before);
    after.map_or_else(|| drops.before.to_string(), |after| format!("{} -> {after}", drops.before))
}

fn name(device: &str) -> String {
    format!("net.ipv4.conf.{}.rp_filter", device.replace('.', "/"))
}

fn is_outer(device: &Device) -> bool {
    device.addresses.iter().any(std::net::IpAddr::is_ipv4) && !INNER.iter().any(|inner| device.name.starts_with(inner))
}

fn is_strict(host: &Host, device: &Device) -> bool {
    let value = |name: &str| host.sysctls.get(name).and_then(|v| v.parse::<u8>().ok());
    let (own, all) = (value(&name(&device.name)), value(&name("all")));
    own.is_some() && own.max(all) == Some(1)
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::{Value, json};

    fn two_devices(drops: Value) -> Sample {
        let mut sample = Sample::healthy();
        let host = &mut sample.0["host"];
        host["devices"] = json!([{"name": "eth0", "mtu": 1500, "addresses": ["10.0.0.10"]},
            {"name": "eth1", "mtu": 1500, "addresses": ["192.0.2.10"]},
            {"name": "cni0", "mtu": 1500, "addresses": ["10.244.0.1"]}]);
        host["routes"] = json!([{"to": "default", "via": "10.0.0.1", "device": "eth0"}]);
        host["sysctls"] = json!({"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0",
            "net.ipv4.conf.eth0.rp_filter": "1", "net.ipv4.conf.eth1.rp_filter": "1",
            "net.ipv4.conf.cni0.rp_filter": "1"});
        host["reversePathDrops"] = drops;
        sample
    }

    #[test]
    fn drops_during_the_probe_are_the_cause() {
        let mut sample = two_devices(json!({"before": 0, "after": 3}));
        sample.probes(&["outsider", "nodeToPod"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4007, Severity::Error)]);
        let found = sample.finding(4007);
        assert_eq!((found.arg("device"), found.arg("from"), found.arg("to")), ("eth1", "1", "2"));
    }

    #[test]
    fn drops_of_other_days_are_at_most_a_warning() {
        assert_eq!(two_devices(json!({"before": 9})).said(), [(4007, Severity::Warning)]);
        assert_eq!(two_devices(json!({"before": 2})).said(), []);
        let mut sample = two_devices(json!({"before": 9, "after": 9}));
        sample.probes(&["outsider"], None, json!({"outcome": "timeout"}));
        assert_eq!(sample.said(), [(4004, Severity::Error), (4007, Severity::Warning)]);
    }

    #[test]
    fn a_loose_device_is_left_alone() {
        let mut sample = two_devices(json!({"before": 9}));
        sample.0["host"]["sysctls"]["net.ipv4.conf.all.rp_filter"] = json!("2");
        assert_eq!(sample.said(), []);
    }
}
