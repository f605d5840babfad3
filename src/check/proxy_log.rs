//! What a kube-proxy says of itself in its log, as the checks that read it have it.

use super::{Check, rules_lead_right, where_it_hurts};
use crate::facts::{Facts, TargetFacts, pod};
use crate::model::pod::Pod;
use crate::model::{Confidence, Evidence, Finding, ObjectRef, Severity};

/// A telling line, and whose it is.
pub(crate) struct Said<'f> {
    pub node: &'f str,
    pub pod: &'f Pod,
    pub line: &'f str,
}

/// The last telling line of a kube-proxy's log.
pub(crate) fn last<'f>(facts: &Facts<'f>, pod: &Pod, telling: impl Fn(&str) -> bool) -> Option<&'f str> {
    let log = facts.snapshot.objects.kube_proxy_logs.get(pod::name(pod))?;
    log.lines().rfind(|line| telling(line))
}

/// As [`last`], of the kube-proxy on the node that is dialled.
pub(crate) fn said<'f>(
    facts: &'f Facts<'_>,
    target: &TargetFacts<'_>,
    telling: impl Fn(&Pod, &str) -> bool,
) -> Option<Said<'f>> {
    let (node, pod) = facts.proxy.pods.get_key_value(target.reach.node?)?;
    let line = last(facts, pod, |line| telling(pod, line))?;
    Some(Said { node, pod, line })
}

impl Said<'_> {
    /// The finding that this line is the cause. That it was said is certain; that it breaks the page only where the rules
    /// are seen to be wrong, or something else proves it.
    pub(crate) fn found(&self, check: &Check, facts: &Facts<'_>, target: &TargetFacts<'_>, proven: bool) -> Finding {
        let object = ObjectRef::namespaced("Pod", "kube-system", pod::name(self.pod));
        let leads = rules_lead_right(facts, target);
        let severity = if leads == Some(true) { Severity::Warning } else { where_it_hurts(target) };
        let sure = severity == Severity::Warning || leads == Some(false) || proven;
        check
            .found(target, object.clone())
            .with("pod", pod::name(self.pod))
            .with("node", self.node)
            .severity(severity)
            .confidence(if sure { Confidence::Certain } else { Confidence::Likely })
            .because(Evidence::Log { object, line: self.line.trim().to_owned() })
    }
}
