//! BA0105: the name that was typed leads to an address that is no node's, and where nothing of this cluster answers.

use crate::check::{Check, Hop, field};
use crate::facts::reach::SSH;
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{AddressSource, Code, Confidence, Finding, Input, ObjectRef, Probe, Severity, Vantage};

pub(crate) const CHECK: Check = Check {
    code: Code(105),
    slug: "name-leads-elsewhere",
    hop: Hop::Client,
    severity: Severity::Error,
    confidence: Confidence::Likely,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Nodes, Input::ClientProbe],
    either: &[],
    // The name is registered elsewhere.
    remedies: &[],
    explains: &[Code(101), Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(_), Some(address)) = (target.stuck(), target.reach.address) else { return Vec::new() };
    let Some(name) = address.host.as_deref().filter(|_| address.source == AddressSource::Flag) else {
        return Vec::new();
    };
    if facts.snapshot.stand.node.is_some() || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let server = facts.snapshot.stand.server.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    let ip = address.ip.to_string();
    let nodes = &facts.snapshot.objects.nodes;
    let is_node_s = |kind: &str| nodes.iter().any(|n| node::addresses(n, kind).contains(&ip.as_str()));
    if server == name || server == ip || is_node_s("InternalIP") || is_node_s("ExternalIP") {
        return Vec::new();
    }
    // A node behind address translation keeps none of its public addresses: what answers there acquits the name. Any
    // machine answers to SSH.
    let here = |p: &&Probe| p.vantage == Vantage::Client && p.target.is_none() && p.host.parse() == Ok(address.ip);
    let controls: Vec<&Probe> = facts.snapshot.probes.iter().filter(here).collect();
    if controls.is_empty() || controls.iter().any(|p| p.outcome.connected() && p.port != SSH) {
        return Vec::new();
    }
    let known = nodes.iter().flat_map(|n| node::addresses(n, "ExternalIP"));
    let known = std::iter::once(server).chain(known).collect::<std::collections::BTreeSet<_>>();
    let found = check
        .found(target, target.target.service_ref())
        .with("name", name)
        .with("ip", &ip)
        .with("known", known.into_iter().collect::<Vec<_>>().join(", "));
    let resolved = field(&ObjectRef::cluster("Name", name), "address", ip.as_str());
    vec![found.because(resolved).because_of(target.reach.failure()).because_of(by_port(controls))]
}

fn by_port(mut probes: Vec<&Probe>) -> Vec<&Probe> {
    probes.sort_by_key(|p| p.port);
    probes
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn typed(name: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["addresses"] = json!([{"ip": "198.51.100.7", "host": name, "source": "flag"}]);
        for probe in sample.0["probes"].as_array_mut().into_iter().flatten() {
            if probe["host"] == json!("203.0.113.10") {
                probe["host"] = json!("198.51.100.7");
            }
        }
        sample.probes(&["client"], None, json!({"outcome": "timeout"}));
        sample
    }

    #[test]
    fn an_address_of_nobody_is_the_name_s_fault() {
        assert_eq!(typed("lab.example.com").said(), [(105, Severity::Error)]);
        assert_eq!(typed("lab.example.com").finding(105).arg("ip"), "198.51.100.7");
    }

    #[test]
    fn an_api_server_that_answers_there_acquits_the_name_and_ssh_does_not() {
        for (port, blamed) in [(6443, false), (22, true)] {
            let mut sample = typed("lab.example.com");
            sample.probe(
                json!({"vantage": "client", "host": "198.51.100.7", "port": port, "outcome": "connected", "millis": 1}),
            );
            assert_eq!(sample.said().iter().any(|(code, _)| *code == 105), blamed, "{port}");
        }
    }
}
