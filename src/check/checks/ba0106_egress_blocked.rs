//! BA0106: the network one sits in lets nothing out to high ports, as those of companies do: the API server answers on 443,
//! and nothing answers above.

use std::net::IpAddr;

use crate::check::{Check, Hop};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity, Vantage};

pub(crate) const CHECK: Check = Check {
    code: Code(106),
    slug: "egress-blocked",
    hop: Hop::Client,
    severity: Severity::Error,
    // A security group that admits 443 alone looks the same from here.
    confidence: Confidence::Possible,
    inputs: &[Input::Services, Input::EndpointSlices, Input::ClientProbe],
    either: &[],
    remedies: &[ActionName::OpenForward],
    explains: &[],
    run,
};

/// Ports that such networks let out.
const LET_OUT: [u16; 2] = [80, 443];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let on_node = facts.snapshot.stand.node.is_some();
    if on_node || target.stuck().is_none() || target.reach.answers != Some(false) {
        return Vec::new();
    }
    let heard = |p: &&Probe| p.outcome.connected() || p.outcome == Outcome::Refused;
    let dials = || facts.snapshot.probes.iter().filter(|p| p.vantage == Vantage::Client);
    let (mut low, mut high): (Vec<&Probe>, Vec<&Probe>) = dials().partition(|p| LET_OUT.contains(&p.port));
    // An address that hears a high port proves that such ports are let out.
    if high.iter().any(heard) || !high.iter().all(|p| p.outcome.dropped()) {
        return Vec::new();
    }
    low.retain(heard);
    high.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    low.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    let mut hosts: Vec<&str> = high.iter().map(|p| p.host.as_str()).filter(|h| !is_inside(facts, h)).collect();
    hosts.dedup();
    // One address may have a firewall of its own; and at least one port that nobody has to open for the page.
    let several = hosts.len() >= 2 && high.iter().any(|p| p.target.is_none());
    let Some(answers) = low.first().filter(|_| several) else { return Vec::new() };
    let object = ObjectRef::cluster("APIServer", &facts.snapshot.stand.server);
    let found = check.found(target, object).with("open_port", answers.port);
    vec![found.because_of([*answers]).because_of(high)]
}

/// Node addresses that no network elsewhere has a way to anyhow.
fn is_inside(facts: &Facts<'_>, host: &str) -> bool {
    let ip: Result<IpAddr, _> = host.parse();
    let own = facts.snapshot.stand.server.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    ip.is_ok_and(|ip| crate::facts::reach::is_private(ip) && own != host)
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::{Value, json};

    fn office(unallocated: &str) -> Sample {
        let mut sample = Sample::from_laptop();
        sample.0["stand"]["server"] = json!("203.0.113.10:443");
        sample.0["addresses"] = json!([{"ip": "203.0.113.10", "source": "kubeconfig", "node": "cp1"},
            {"ip": "203.0.113.11", "source": "externalIp", "node": "w1"}]);
        let dial = |host: &str, port: u16, outcome: &str| -> Value {
            json!({"vantage": "client", "host": host, "port": port, "outcome": outcome, "millis": 3000})
        };
        let page = |host: &str| -> Value {
            let mut probe = dial(host, 30080, "timeout");
            probe["target"] = json!("bookinfo/productpage");
            probe
        };
        sample.blind("client");
        if let Some(probes) = sample.0["probes"].as_array_mut() {
            probes.extend([page("203.0.113.10"), page("203.0.113.11"), dial("203.0.113.10", 443, "connected")]);
            probes.push(dial("203.0.113.10", 32767, unallocated));
        }
        sample
    }

    #[test]
    fn only_443_gets_out() {
        assert!(office("timeout").said().contains(&(106, Severity::Error)));
    }

    #[test]
    fn one_high_port_that_is_heard_proves_the_contrary() {
        assert!(office("refused").said().iter().all(|(code, _)| *code != 106));
    }
}
