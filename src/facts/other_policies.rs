//! What Cilium's and Calico's own policies say of packets from outside the cluster, and which policies of admission forbid
//! nodePorts. Only what is plain to read is read: a selector in other words selects nothing here.

use serde_json::Value;

use crate::model::pod::Pod;
use crate::model::{ObjectRef, Snapshot};

use super::{Facts, policy};

/// The policies of the CNI that together keep strangers from this port of a pod, by name: all that select it, where
/// neither one of them nor a NetworkPolicy admits what comes from outside.
pub fn denying<'a>(facts: &Facts<'a>, pod: &Pod, port: u16) -> Vec<&'a Value> {
    let mut selecting = Vec::new();
    for policy in &facts.snapshot.objects.other_policies {
        let closed = match kind(policy) {
            "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => cilium(policy, pod, port),
            "CalicoNetworkPolicy" | "CalicoGlobalNetworkPolicy" => calico(policy, pod, port),
            _ => None,
        };
        match closed {
            Some(true) => selecting.push(policy),
            Some(false) => return Vec::new(),
            None => {}
        }
    }
    let own = facts.index.policies(pod.metadata.namespace.as_deref().unwrap_or_default());
    if policy::admits_somebody(own, pod, port) {
        return Vec::new();
    }
    selecting.sort_by_key(|p| name(p));
    selecting
}

/// The policies of Gatekeeper and Kyverno that refuse a Service of type NodePort in this namespace.
pub fn forbidding_node_ports<'a>(snapshot: &'a Snapshot, namespace: &str) -> Option<&'a Value> {
    let listed = |v: &Value, pointer: &str| {
        let list = v.pointer(pointer).and_then(Value::as_array);
        list.map(|names| names.iter().any(|n| n.as_str() == Some(namespace)))
    };
    let refuses = |policy: &&Value| match kind(policy) {
        "K8sBlockNodePort" => {
            matches!(text(policy, "/spec/enforcementAction"), "" | "deny")
                && listed(policy, "/spec/match/namespaces") != Some(false)
                && listed(policy, "/spec/match/excludedNamespaces") != Some(true)
        }
        "ClusterPolicy" => text(policy, "/spec/validationFailureAction").eq_ignore_ascii_case("enforce"),
        _ => false,
    };
    snapshot.objects.other_policies.iter().filter(refuses).min_by_key(|p| name(p))
}

/// A policy, as kubectl would name it.
pub fn object(policy: &Value) -> ObjectRef {
    let namespace = policy.pointer("/metadata/namespace").and_then(Value::as_str).filter(|n| !n.is_empty());
    // Calico's kinds are called like Kubernetes' own.
    let kind = kind(policy).trim_start_matches("Calico");
    ObjectRef { kind: kind.to_owned(), namespace: namespace.map(str::to_owned), name: name(policy).to_owned() }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn kind(policy: &Value) -> &str {
    text(policy, "/kind")
}

fn name(policy: &Value) -> &str {
    text(policy, "/metadata/name")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_elsewhere(policy: &Value, pod: &Pod) -> bool {
    let namespace = policy.pointer("/metadata/namespace").and_then(Value::as_str).filter(|n| !n.is_empty());
    namespace.is_some() && namespace != pod.metadata.namespace.as_deref()
}

fn label<'p>(pod: &'p Pod, key: &str) -> Option<&'p str> {
    // Cilium writes where a label comes from before it.
    let bare = key.strip_prefix("k8s:").or_else(|| key.strip_prefix("any:")).unwrap_or(key);
    if bare == "io.kubernetes.pod.namespace" {
        return pod.metadata.namespace.as_deref();
    }
    pod.metadata.labels.as_ref()?.get(bare).map(String::as_str)
}

/// Whether a policy of Cilium closes the port to strangers; none where it does not concern it.
fn cilium(policy: &Value, pod: &Pod, port: u16) -> Option<bool> {
    if is_elsewhere(policy, pod) {
        return None;
    }
    let single = policy.get("spec").filter(|s| s.is_object());
    let mut closed = None;
    for spec in single.into_iter().chain(list(policy, "specs")) {
        let selector = spec.get("endpointSelector").filter(|s| s.get("matchExpressions").is_none());
        let labels = selector.and_then(|s| s.get("matchLabels")).and_then(Value::as_object);
        let selects = selector.is_some()
            && labels.into_iter().flatten().all(|(k, v)| v.as_str().is_some() && label(pod, k) == v.as_str());
        let rules = spec.get("ingress").filter(|_| selects).and_then(Value::as_array);
        let isolates = spec.pointer("/enableDefaultDeny/ingress").and_then(Value::as_bool) != Some(false);
        let Some(rules) = rules.filter(|_| isolates) else { continue };
        if rules.iter().any(|rule| cilium_admits(rule, port)) {
            return Some(false);
        }
        closed = Some(true);
    }
    closed
}

fn cilium_admits(rule: &Value, port: u16) -> bool {
    let ports: Vec<&Value> = list(rule, "toPorts").iter().flat_map(|p| list(p, "ports")).collect();
    let number = |p: &&Value| p.get("port").and_then(Value::as_str).and_then(|p| p.parse::<u16>().ok());
    // A port by name may be this one.
    let covers = ports.is_empty() || ports.iter().any(|p| number(p).is_none_or(|n| n == port));
    let anybody = rule.as_object().is_some_and(|r| !r.keys().any(|k| k.starts_with("from")));
    let world = list(rule, "fromEntities").iter().any(|e| matches!(e.as_str(), Some("world" | "all")));
    let ranges = rule.get("fromCIDR").is_some() || rule.get("fromCIDRSet").is_some();
    covers && (anybody || world || ranges)
}

/// Whether a policy of Calico closes the port to strangers; none where it does not concern it.
fn calico(policy: &Value, pod: &Pod, port: u16) -> Option<bool> {
    let spec = policy.get("spec")?;
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default();
    let everywhere = matches!(text("namespaceSelector"), "" | "all()");
    let types = list(spec, "types");
    let inbound = if types.is_empty() {
        spec.get("ingress").is_some() || spec.get("egress").is_none()
    } else {
        types.iter().any(|t| t.as_str() == Some("Ingress"))
    };
    if is_elsewhere(policy, pod) || !everywhere || !inbound || !calico_selects(text("selector"), pod) {
        return None;
    }
    Some(!list(spec, "ingress").iter().any(|rule| calico_admits(rule, port)))
}

/// `all()`, `has(key)` and `key == 'value'`, joined by `&&`.
fn calico_selects(selector: &str, pod: &Pod) -> bool {
    selector.split("&&").map(str::trim).all(|term| {
        if matches!(term, "" | "all()") {
            return true;
        }
        if let Some(key) = term.strip_prefix("has(").and_then(|rest| rest.strip_suffix(')')) {
            return label(pod, key.trim()).is_some();
        }
        let Some((key, value)) = term.split_once("==") else { return false };
        label(pod, key.trim()) == Some(value.trim().trim_matches(['\'', '"']))
    })
}

fn calico_admits(rule: &Value, port: u16) -> bool {
    if rule.get("action").and_then(Value::as_str) == Some("Deny") {
        return false;
    }
    let source = rule.get("source").and_then(Value::as_object);
    let open = source.is_none_or(|s| s.is_empty() || s.contains_key("nets") || s.contains_key("notNets"));
    let ports = rule.get("destination").map(|d| list(d, "ports")).unwrap_or_default();
    let covers = |p: &Value| match (p.as_u64(), p.as_str().and_then(|p| p.split_once(':'))) {
        (Some(number), _) => number == u64::from(port),
        (_, Some((low, high))) => low.parse().is_ok_and(|l| port >= l) && high.parse().is_ok_and(|h| port <= h),
        // A name may be this port's.
        _ => true,
    };
    open && (ports.is_empty() || ports.iter().any(covers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn closes(kind: &str, spec: Value) -> bool {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "page", "namespace": "bookinfo",
            "labels": {"app": "productpage"}}}))
        .unwrap();
        let policy = json!({"kind": kind, "metadata": {"name": "p", "namespace": ""}, "spec": spec});
        match kind.starts_with("Cilium") {
            true => cilium(&policy, &pod, 9080) == Some(true),
            false => calico(&policy, &pod, 9080) == Some(true),
        }
    }

    #[test]
    fn ciliums_are_read_as_cilium_reads_them() {
        let page = json!({"matchLabels": {"k8s:app": "productpage"}});
        let with = |rule: Value| json!({"endpointSelector": page, "ingress": [rule]});
        for (spec, expected) in [
            (json!({"endpointSelector": {}, "ingress": [{}]}), false),
            (json!({"endpointSelector": {}, "ingress": []}), true),
            (json!({"endpointSelector": {"matchLabels": {"app": "reviews"}}, "ingress": []}), false),
            (json!({"endpointSelector": {}, "egress": []}), false),
            (json!({"endpointSelector": {}, "ingress": [], "enableDefaultDeny": {"ingress": false}}), false),
            (with(json!({"fromEndpoints": [{}]})), true),
            (with(json!({"fromEntities": ["cluster"]})), true),
            (with(json!({"fromEntities": ["world"]})), false),
            (with(json!({"fromCIDR": ["203.0.113.0/24"]})), false),
            (with(json!({"toPorts": [{"ports": [{"port": "9080"}]}]})), false),
            (with(json!({"toPorts": [{"ports": [{"port": "8080"}]}]})), true),
        ] {
            assert_eq!(closes("CiliumNetworkPolicy", spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn calicos_are_read_as_far_as_they_are_plain() {
        for (spec, expected) in [
            (json!({"selector": "all()", "types": ["Ingress"]}), true),
            (json!({"selector": "app == 'productpage'", "types": ["Ingress"], "ingress": []}), true),
            (json!({"selector": "app == 'productpage' || all()", "types": ["Ingress"]}), false),
            (json!({"selector": "has(app) && app == \"reviews\"", "types": ["Ingress"]}), false),
            (json!({"selector": "all()", "types": ["Egress"]}), false),
            (json!({"namespaceSelector": "tier == 'prod'", "types": ["Ingress"]}), false),
            (json!({"types": ["Ingress"], "ingress": [{"action": "Allow"}]}), false),
            (json!({"types": ["Ingress"], "ingress": [{"action": "Deny"}]}), true),
            (json!({"types": ["Ingress"], "ingress": [{"action": "Allow", "source": {"selector": "all()"}}]}), true),
            (
                json!({"types": ["Ingress"], "ingress": [{"action": "Allow", "destination": {"ports": ["9000:9100"]}}]}),
                false,
            ),
            (json!({"types": ["Ingress"], "ingress": [{"action": "Allow", "destination": {"ports": [443]}}]}), true),
        ] {
            assert_eq!(closes("CalicoGlobalNetworkPolicy", spec.clone()), expected, "{spec}");
        }
    }
}
