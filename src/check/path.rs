//! The path of a packet as a line of hops, with the break marked.

use serde::{Deserialize, Serialize};

use super::{Hop, find};
use crate::facts::{Facts, TargetFacts, node, pod};
use crate::model::{Finding, Severity};

/// How a hop fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HopState {
    Ok,
    Broken,
    Unknown,
}

/// One hop of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathHop {
    pub hop: Hop,
    /// What stands there: `203.0.113.10:30080`, a node, a Service, a pod with its port. "" for the reader and for what
    /// is not known; the renderer has words for those.
    pub label: String,
    pub state: HopState,
}

/// You, the address, the node, the Service, the pod: as far as the break everything is passed, what lies behind it is
/// known only where something else proves it.
pub fn path(facts: &Facts<'_>, target: &TargetFacts<'_>, findings: &[Finding]) -> Vec<PathHop> {
    let own = target.target.to_string();
    let broken = findings
        .iter()
        .find(|f| f.target == own && f.severity == Severity::Error)
        .and_then(|f| find(f.code))
        .map(|c| shown(c.hop));
    let service = target.service.as_ref();
    let endpoint = service.and_then(|s| s.usable().next());
    let pod = match (service, endpoint) {
        (Some(service), None) => service.live_pods().next().map(pod::name).unwrap_or_default().to_owned(),
        (_, Some(e)) => {
            let name = e.pod.map_or_else(|| e.ip.to_string(), str::to_owned);
            e.port.map_or(name.clone(), |port| format!("{name}:{port}"))
        }
        (None, None) => String::new(),
    };
    let served = target.reach.answers == Some(true);
    let node_ready = target.reach.node.and_then(|n| facts.node(n)).map(node::is_ready);
    let pod_proven = target.reach.at_pods().any(|p| p.outcome.is_right());
    let proven = |hop: Hop| match hop {
        Hop::Client => Some(true),
        Hop::Edge => {
            let arrived = target.reach.client.iter().any(|p| p.outcome.connected() || refused(p));
            (arrived || !target.reach.outsider.is_empty()).then_some(true)
        }
        Hop::Node => node_ready,
        Hop::Service => service.map(|s| s.is_sound()),
        _ => (pod_proven || endpoint.is_some()).then_some(true),
    };
    let line = [
        (Hop::Client, String::new()),
        (Hop::Edge, target.authority().unwrap_or_default()),
        (Hop::Node, target.reach.node.unwrap_or_default().to_owned()),
        (Hop::Service, format!("{}/{}", target.target.namespace, target.target.service)),
        (Hop::Pod, pod),
    ];
    line.into_iter()
        .map(|(hop, label)| {
            let state = match broken {
                _ if served => HopState::Ok,
                Some(broken) if hop == broken => HopState::Broken,
                Some(broken) if hop < broken => HopState::Ok,
                _ if proven(hop) == Some(true) => HopState::Ok,
                _ => HopState::Unknown,
            };
            PathHop { hop, label, state }
        })
        .collect()
}

fn refused(probe: &crate::model::Probe) -> bool {
    matches!(probe.outcome, crate::model::Outcome::Refused)
}

/// The hop of the line that shows a break: kube-proxy works on the node, the pod network lies before the pod.
fn shown(hop: Hop) -> Hop {
    match hop {
        Hop::ServiceProxy => Hop::Node,
        Hop::PodNetwork => Hop::Pod,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::sample::Sample;
    use serde_json::json;

    fn states(sample: &Sample) -> Vec<HopState> {
        sample.with_facts(|facts| {
            let findings = crate::check::run(facts).findings;
            path(facts, &facts.targets[0], &findings).into_iter().map(|h| h.state).collect()
        })
    }

    #[test]
    fn all_is_passed_on_a_healthy_path() {
        assert_eq!(states(&Sample::healthy()), [HopState::Ok; 5]);
    }

    #[test]
    fn the_break_is_marked_and_what_is_proven_behind_it_stays() {
        let mut sample = Sample::healthy();
        sample.service()["spec"]["type"] = json!("ClusterIP");
        sample.service()["spec"]["ports"][0]["nodePort"] = json!(null);
        sample.answer(json!({"outcome": "refused"}));
        use HopState::{Broken, Ok};
        assert_eq!(states(&sample), [Ok, Ok, Ok, Broken, Ok]);
    }
}
