//! BA3001: the cluster has no service proxy at all.

use crate::check::{Check, Hop, rules_lead_right, where_it_hurts};
use crate::facts::proxy::Kind;
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, Code, Confidence, Evidence, Finding, Input, ObjectRef, Severity};

pub(crate) const CHECK: Check = Check {
    code: Code(3001),
    slug: "no-kube-proxy",
    hop: Hop::ServiceProxy,
    severity: Severity::Error,
    confidence: Confidence::Certain,
    inputs: &[Input::KubeProxy, Input::Nodes],
    either: &[],
    remedies: &[ActionName::InstallKubeProxy, ActionName::HostPort],
    explains: &[Code(3018), Code(6001)],
    run,
};

fn run(check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<Finding> {
    if facts.proxy.kind != Kind::Absent {
        return Vec::new();
    }
    let object = ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy");
    let harmless = rules_lead_right(facts, target) == Some(true);
    let found = check
        .found(target, object.clone())
        .severity(if harmless { Severity::Warning } else { where_it_hurts(target) })
        // A service proxy that nobody here knows of would have to be there if the page answers.
        .confidence(if target.reach.answers == Some(true) { Confidence::Likely } else { Confidence::Certain });
    vec![found.because(Evidence::Absent { object }).because_of(target.reach.failure())]
}

#[cfg(test)]
mod tests {
    use crate::check::sample::Sample;
    use crate::model::Severity;
    use serde_json::json;

    fn without_daemon_set() -> Sample {
        let mut sample = Sample::healthy();
        *sample.objects("daemonSets") = json!([]);
        *sample.objects("kubeProxyPods") = json!([]);
        sample.0["host"]["rules"] = json!({"services": false, "nodePorts": []});
        sample.answer(json!({"outcome": "refused"}));
        sample
    }

    #[test]
    fn nothing_serves_the_node_port() {
        assert_eq!(without_daemon_set().said(), [(3001, Severity::Error)]);
    }

    #[test]
    fn k3s_and_cilium_need_none() {
        let mut sample = without_daemon_set();
        sample.objects("nodes")[0]["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.34.4+k3s1");
        assert!(sample.said().iter().all(|(code, _)| *code != 3001));
        let mut sample = without_daemon_set();
        *sample.objects("daemonSets") = json!([{"metadata": {"name": "cilium", "namespace": "kube-system"}}]);
        assert!(sample.said().iter().all(|(code, _)| *code != 3001));
    }
}
