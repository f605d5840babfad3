//! BA3004: kube-proxy ends because it may not set the limits of connection tracking, as in a node that is itself a container.

use crate::check::{Check, Hop, proxy_log, rules_lead_right, where_it_hurts};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3004),
    slug: "conntrack-denied",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy],
    either: &[],
    remedies: &[ActionName::ConfigureKubeProxy, ActionName::HostPort],
    explains: &[Code(3003), Code(3018), Code(3019), Code(3020), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    let Some((node, sick)) = target.reach.node.and_then(|n| facts.proxy.pods.get_key_value(n)) else {
        return Vec::new();
    };
    // Where it runs in spite of it, the line is of a run that ended long ago.
    let Some(trouble) = pod::trouble(sick) else { return Vec::new() };
    let name = pod::name(sick);
    let Some(line) = proxy_log::last(facts, sick, is_denied) else { return Vec::new() };
    let object = ObjectRef::namespaced("Pod", "kube-system", name);
    let harmless = rules_lead_right(facts, target) == Some(true);
    let found = check.found(target, object.clone()).with("pod", name).with("node", node).severity(if harmless {
        Severity::Warning
    } else {
        where_it_hurts(target)
    });
    let state = Evidence::Container {
        object: object.clone(),
        container: trouble.container.to_owned(),
        reason: trouble.reason.to_owned(),
        message: trouble.message.to_owned(),
    };
    let log = Evidence::Log { object, line: line.trim().to_owned() };
    vec![found.because(log).because(state).because_of(target.reach.failure())]
}

fn is_denied(line: &str) -> bool {
    line.contains("conntrack") && (line.contains("permission denied") || line.contains("operation not permitted"))
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    const LOG: &str = "E1123 11:59:00.000000       1 server.go:556] \"Error running ProxyServer\" err=\"open \
                       /proc/sys/net/netfilter/nf_conntrack_max: permission denied\"";

    fn crashing(log: &str) -> Sample {
        let mut sample = Sample::healthy();
        let pod = &mut sample.objects("kubeProxyPods")[0];
        pod["status"]["containerStatuses"] = json!([{"name": "kube-proxy", "image": "kube-proxy", "imageID": "",
            "ready": false, "restartCount": 6, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]);
        let name = pod["metadata"]["name"].clone();
        sample.objects("kubeProxyLogs")[name.as_str().unwrap_or_default()] = json!(log);
        sample.0["host"]["rules"] = json!({"services": false, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn the_crash_loop_is_its_consequence() {
        assert_eq!(crashing(LOG).said(), [(3004, Severity::Error)]);
    }

    #[test]
    fn another_crash_is_another_matter() {
        assert_eq!(crashing("E1123 11:59:00.000000 1 failed to load config").said(), [(3003, Severity::Error)]);
    }
}
