//! BA2303: the application listens on one of its pod's IP families only, and the Service leads to the other.

use std::net::{IpAddr, SocketAddr};

use crate::check::{Check, Hop, listeners, unless_it_answers};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Finding, Input, ObjectRef, Outcome, Probe, Severity, Vantage};

pub(crate) const CHECK: Check = Check {
    code: Code(2303),
    slug: "one-family-listener",
    hop: Hop::Pod,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::Services, Input::EndpointSlices, Input::Pods, Input::NodeSettings],
    either: &[],
    remedies: &[ActionName::OpenForward, ActionName::MendWorkload],
    explains: &[Code(2101), Code(2306), Code(3018)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some(service) = &target.service else { return Vec::new() };
    // kube-proxy keeps to the family of the packet: what was dialled by IPv4 goes to an IPv4 endpoint.
    let Some(dialled) = target.reach.address.map(|a| a.ip.is_ipv6()) else { return Vec::new() };
    for sick in service.live_pods() {
        let name = pod::name(sick);
        let from_outside: Vec<&Probe> = target.reach.to_pod(name).collect();
        // The API server dials the pod's first address.
        let own = sick.status.as_ref().and_then(|s| s.pod_ip.as_deref());
        let host = |p: &Probe| if p.vantage == Vantage::NodeToPod { p.host.parse() } else { own.unwrap_or("").parse() };
        let of_family = |p: &&&Probe, v6: bool| host(p).is_ok_and(|ip: IpAddr| ip.is_ipv6() == v6);
        let dead = from_outside.iter().find(|p| of_family(p, dialled) && p.outcome == Outcome::Refused);
        let Some(dead) = dead else { continue };
        let heard = |p: &&&Probe| of_family(p, !dialled) && p.port == dead.port && p.outcome.connected();
        let alive = from_outside.iter().find(heard);
        // Where the pod has no address of the other family, its sockets tell.
        let open = |sockets: &[SocketAddr], v6: bool| {
            sockets.iter().any(|s| s.port() == dead.port && !s.ip().is_loopback() && s.is_ipv6() == v6)
        };
        let sockets = facts.sockets(sick).filter(|s| open(s, !dialled) && !open(s, dialled));
        if alive.is_none() && sockets.is_none() {
            continue;
        }
        let object = ObjectRef::namespaced("Pod", &target.target.namespace, name);
        let found = check
            .found(target, object.clone())
            .with("pod", name)
            .with("target_port", dead.port)
            .with("family", if dialled { "IPv4" } else { "IPv6" })
            .with("other", if dialled { "IPv6" } else { "IPv4" })
            .severity(unless_it_answers(target));
        let found = sockets.into_iter().fold(found, |found, s| found.because(listeners(&object, s)));
        return vec![found.because_of(alive.into_iter().chain([dead]).copied())];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn dual_stack() -> Sample {
        let mut sample = Sample::healthy();
        let mut slice = sample.objects("endpointSlices")[0].clone();
        slice["metadata"]["name"] = json!("productpage-v6");
        slice["addressType"] = json!("IPv6");
        slice["endpoints"][0]["addresses"] = json!(["fd00:1::7"]);
        let mut probe = json!({"vantage": "nodeToPod", "target": "bookinfo/productpage", "host": "fd00:1::7", "port": 9080,
            "pod": "productpage-v1-7d8c-abcde", "millis": 2});
        probe["outcome"] = json!("http");
        probe["status"] = json!(200);
        probe["right"] = json!(true);
        sample.objects("endpointSlices").as_array_mut().into_iter().for_each(|l| l.push(slice.clone()));
        sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "refused"}));
        sample.0["probes"].as_array_mut().into_iter().for_each(|l| l.push(probe.clone()));
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_other_family_is_heard() {
        assert_eq!(dual_stack().said(), [(2303, Severity::Error)]);
        assert_eq!(dual_stack().finding(2303).arg("family"), "IPv6");
    }

    #[test]
    fn where_the_pod_has_one_address_its_sockets_tell() {
        for (sockets, expected) in [
            (json!(["[::]:9080"]), (2303, Severity::Error)),
            (json!(["[::1]:9080"]), (2301, Severity::Error)),
            (json!(["127.0.0.1:9080"]), (2301, Severity::Error)),
        ] {
            let mut sample = Sample::healthy();
            sample.probes(&["podProxy", "nodeToPod"], None, json!({"outcome": "refused"}));
            sample.answer(json!({"outcome": "refused"}));
            sample.0["host"]["podSockets"] = json!({"bookinfo/productpage-v1-7d8c-abcde": sockets});
            assert_eq!(sample.said(), [expected], "{sockets}");
        }
    }

    #[test]
    fn one_that_refuses_on_both_is_deaf() {
        let mut sample = dual_stack();
        sample.probes(&["podProxy", "nodeToPod", "portForward"], None, json!({"outcome": "refused"}));
        assert_eq!(sample.said(), [(2302, Severity::Error)]);
    }
}
