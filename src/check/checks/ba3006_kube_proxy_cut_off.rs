//! BA3006: kube-proxy runs, but cannot reach the API server, so its rules stay as they were.

use std::net::IpAddr;

use crate::check::{Check, Hop, field, proxy_log, rules_lead_right, where_it_hurts};
use crate::facts::{Facts, TargetFacts, log, node, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3006),
    slug: "kube-proxy-cut-off",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy, Input::Nodes],
    either: &[],
    remedies: &[ActionName::ConfigureKubeProxy, ActionName::RestartKubeProxy, ActionName::HostPort],
    explains: &[Code(3003), Code(3018), Code(3019), Code(3020), Code(3022), Code(6001)],
    run,
};

/// What client-go says when it cannot get through (Go's net and crypto/x509 packages).
const CUT_OFF: [&str; 8] = [
    "connection refused",
    "i/o timeout",
    "no route to host",
    "network is unreachable",
    "no such host",
    "TLS handshake timeout",
    "certificate signed by unknown authority",
    "context deadline exceeded",
];

/// Seconds: client-go tries again every minute at least.
const RECENT: i64 = 300;

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(node) = target.reach.node else { return Vec::new() };
    let Some(sick) = facts.proxy.pods.get(node) else { return Vec::new() };
    let name = pod::name(sick);
    let log = proxy_log::last(facts, sick, is_cut_off).filter(|line| log::is_recent(line, facts.now(), RECENT));
    let stranger = facts.proxy.server.filter(|s| is_strange(facts, s));
    let hurts = where_it_hurts(target) == Severity::Error && rules_lead_right(facts, target) != Some(true);
    let confidence = match (log, stranger) {
        (Some(_), Some(_)) => Confidence::Certain,
        (Some(_), None) => Confidence::Likely,
        // A load balancer before the API servers has a strange address, too: it is a clue only where something fails.
        (None, Some(_)) if hurts => Confidence::Likely,
        _ => return Vec::new(),
    };
    let config = ObjectRef::namespaced("ConfigMap", "kube-system", "kube-proxy");
    let mut found = check
        .found(target, ObjectRef::namespaced("Pod", "kube-system", name))
        .with("pod", name)
        .with("node", node)
        .with("server", facts.proxy.server.unwrap_or_default())
        .with("expected", &facts.snapshot.stand.server)
        .severity(if hurts { Severity::Error } else { Severity::Warning })
        .confidence(confidence);
    if let Some(server) = stranger {
        found = found.because(field(&config, "data[kubeconfig.conf].clusters[0].cluster.server", server));
    }
    if let Some(line) = log {
        let object = found.subject.clone();
        found = found.because(Evidence::Log { object, line: line.trim().to_owned() });
    }
    vec![found.because_of(target.reach.failure())]
}

fn is_cut_off(line: &str) -> bool {
    let about_api = line.contains("https://") || line.contains("dial tcp") || line.contains("ailed to");
    about_api && CUT_OFF.iter().any(|words| line.contains(words))
}

/// An address that belongs to no node, is not the one used here and not one by which the cluster is known.
fn is_strange(facts: &Facts<'_>, server: &str) -> bool {
    let Some(ip) = host_ip(server) else { return false };
    let snapshot = facts.snapshot;
    let of_nodes = snapshot
        .objects
        .nodes
        .iter()
        .flat_map(|n| ["InternalIP", "ExternalIP"].into_iter().flat_map(|kind| node::addresses(n, kind)))
        .any(|a| a.parse() == Ok(ip));
    let of_services = || {
        let cluster_ip = |s: &k8s_openapi::api::core::v1::Service| s.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok();
        snapshot.objects.services.iter().any(|s| cluster_ip(s) == Some(ip))
    };
    !ip.is_loopback()
        && !of_nodes
        && host_ip(&snapshot.stand.server) != Some(ip)
        && !snapshot.addresses.iter().any(|a| a.ip == ip)
        && !of_services()
}

/// The IP of `host:port`, `[v6]:port` or a bare address; none for a name.
fn host_ip(authority: &str) -> Option<IpAddr> {
    let bare = |text: &str| text.trim_matches(['[', ']']).parse().ok();
    bare(authority).or_else(|| authority.rsplit_once(':').and_then(|(host, _)| bare(host)))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    const LOG: &str = "E1123 11:59:30.000000       1 reflector.go:166] Failed to watch *v1.Service: failed to list *v1.Service: \
                       Get \"https://10.0.0.99:6443/api/v1/services\": dial tcp 10.0.0.99:6443: connect: no route to host";

    fn cut_off(log: bool) -> Sample {
        let mut sample = Sample::healthy();
        let config = "clusters:\n- cluster:\n    server: https://10.0.0.99:6443\n";
        sample.0["objects"]["kubeProxyConfig"]["data"]["kubeconfig.conf"] = json!(config);
        if log {
            let name = sample.objects("kubeProxyPods")[0]["metadata"]["name"].clone();
            sample.objects("kubeProxyLogs")[name.as_str().unwrap_or_default()] = json!(LOG);
        }
        sample
    }

    #[test]
    fn the_missing_rule_is_its_consequence() {
        let mut sample = cut_off(true);
        sample.0["host"]["rules"]["nodePorts"] = json!([]);
        sample.answer(json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(3006, Severity::Error)]);
        assert_eq!(sample.finding(3006).arg("server"), "10.0.0.99:6443");
    }

    #[test]
    fn a_log_line_of_this_morning_is_history() {
        let mut sample = cut_off(true);
        sample.0["takenAt"] = json!("2026-11-23T18:00:00Z");
        assert_eq!(sample.said(), []);
        sample.0["takenAt"] = json!("2026-11-24T11:59:40Z");
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn a_strange_address_alone_is_no_fault() {
        assert_eq!(cut_off(false).said(), []);
        assert_eq!(cut_off(true).said(), [(3006, Severity::Warning)]);
    }
}
