//! BA1008: a process of the node, or a pod with that hostPort, uses the nodePort's number as well.

use crate::check::{Check, Hop, field, rules_lead_right};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{Code, Confidence, Finding, Input, OWN_PROCESS, ObjectRef, Outcome, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(1008),
    slug: "node-port-in-use",
    hop: Hop::Node,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices],
    either: &[Input::Pods, Input::NodeSettings],
    // Only a person can say which of the two should give way.
    remedies: &[],
    explains: &[Code(2305), Code(3018), Code(3022)],
    run,
};

/// Who may hold the port for the Service itself: this program, systemd on its behalf, and service proxies that open
/// their ports.
const SERVING: [&str; 7] = [OWN_PROCESS, "systemd", "kube-proxy", "k3s", "kubelite", "cilium-agent", "cilium-envoy"];

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let (Some(service), Some(node)) = (target.exposed(), target.reach.node) else { return Vec::new() };
    let Some(port) = service.node_port().filter(|p| target.reach.port == Some(*p)) else { return Vec::new() };
    let on_node = facts.snapshot.stand.node.as_deref() == Some(node);
    let own = |p: &&Pod| service.pods.iter().any(|mine| pod::name(mine) == pod::name(p));
    let in_namespace = |p: &&Pod| p.metadata.namespace.as_deref() == Some(&target.target.namespace);
    let pods = facts.index.pods_on(node).iter().copied();
    let mut holders: Vec<(&Pod, String)> = pods
        .filter(|p| pod::is_live(p) && !(in_namespace(p) && own(p)))
        .filter_map(|p| Some((p, host_port(p, port)?)))
        .collect();
    holders.sort_by_key(|(p, _)| (p.metadata.namespace.as_deref(), pod::name(p)));
    let found = check.found(target, ObjectRef::cluster("Node", node)).with("node", node);
    if let Some((holder, path)) = holders.first() {
        let namespace = holder.metadata.namespace.as_deref().unwrap_or_default();
        let object = ObjectRef::namespaced("Pod", namespace, pod::name(holder));
        let answers = somebody_else(target) && (!on_node || rules_lead_right(facts, target) == Some(true));
        let found = found.with("owner", format!("{namespace}/{}", pod::name(holder)));
        let found = match answers {
            true => found.confidence(Confidence::Likely),
            false => found.severity(Severity::Warning),
        };
        return vec![found.because(field(&object, path.as_str(), port)).because_of(target.reach.failure())];
    }
    let listeners = facts.snapshot.host.as_ref().filter(|_| on_node).map(|h| &h.listeners);
    let process = listeners.and_then(|l| l.get(&port)).map(String::as_str).filter(|p| !p.is_empty());
    let Some(process) = process.filter(|p| !SERVING.iter().any(|s| p.starts_with(s))) else { return Vec::new() };
    // kube-proxy's rules come before any process: as long as they are there it only waits for them to go.
    let listens = field(&ObjectRef::cluster("Node", node), format!("listeners[{port}]"), process);
    vec![found.with("owner", process).severity(Severity::Warning).because(listens)]
}

/// What answers at the nodePort is not what the pods say.
fn somebody_else(target: &TargetFacts<'_>) -> bool {
    let strange = |outcome: &Outcome| outcome.connected() && !outcome.is_right();
    target.reach.at_pods().any(|p| p.outcome.is_right())
        && target.reach.answers == Some(false)
        && target.reach.decisive.iter().any(|p| strange(&p.outcome))
}

/// The field by which a pod takes this TCP port of its node.
fn host_port(holder: &Pod, port: u16) -> Option<String> {
    let on_host = holder.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let wanted = i32::from(port);
    pod::containers(holder).iter().enumerate().find_map(|(i, container)| {
        let mut ports = container.ports.iter().flatten().enumerate();
        let (j, found) = ports.find(|(_, p)| {
            let tcp = p.protocol.as_deref().is_none_or(|p| p == "TCP");
            tcp && (p.host_port == Some(wanted) || (on_host && p.container_port == wanted))
        })?;
        let name = if found.host_port == Some(wanted) { "hostPort" } else { "containerPort" };
        Some(format!("spec.containers[{i}].ports[{j}].{name}"))
    })
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::{Confidence, Severity};
    use serde_json::json;

    fn host_port() -> Sample {
        let mut sample = Sample::healthy();
        let details = &mut sample.objects("pods")[1];
        details["spec"]["nodeName"] = json!("cp1");
        details["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(30080);
        sample
    }

    #[test]
    fn a_pod_that_answers_in_place_of_the_page() {
        let mut sample = host_port();
        sample.answer(json!({"outcome": "http", "status": 404, "right": false}));
        assert_eq!(sample.said(), [(1008, Severity::Error)]);
        assert_eq!(sample.finding(1008).confidence, Confidence::Likely);
    }

    #[test]
    fn as_long_as_the_page_answers_it_is_a_warning() {
        assert_eq!(host_port().said(), [(1008, Severity::Warning)]);
    }

    #[test]
    fn on_another_node_it_is_nobody_s_business() {
        let mut sample = host_port();
        sample.objects("pods")[1]["spec"]["nodeName"] = json!("w1");
        assert_eq!(sample.said(), []);
    }

    #[test]
    fn a_process_waits_for_the_rules_to_go_and_ours_is_none() {
        let mut sample = Sample::healthy();
        sample.0["host"]["listeners"] = json!({"30080": "nginx", "22": "sshd"});
        assert_eq!(sample.said(), [(1008, Severity::Warning)]);
        assert_eq!(sample.finding(1008).arg("owner"), "nginx");
        sample.0["host"]["listeners"] = json!({"30080": "kubectl-bookacc"});
        assert_eq!(sample.said(), []);
    }
}
