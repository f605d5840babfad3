//! CoreDNS as kubeadm ships it.

use serde_json::{Value, json};

use super::control_plane::binding;
use super::images;
use super::plan::DNS_SERVICE;

/// Where its source lies.
pub const MODULE: &str = "github.com/coredns/coredns";

/// The folders of the plugins that the Corefile below names; that of `prometheus` is called otherwise.
const PLUGINS: [&str; 10] =
    ["cache", "errors", "forward", "health", "kubernetes", "loadbalance", "loop", "metrics", "ready", "reload"];

/// Its program with these plugins, in Go.
pub fn source() -> String {
    let plugins: String = PLUGINS.iter().map(|name| format!("\t_ \"{MODULE}/plugin/{name}\"\n")).collect();
    format!("package main\n\nimport (\n\t\"{MODULE}/coremain\"\n{plugins})\n\nfunc main() {{ coremain.Run() }}\n")
}

const COREFILE: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

/// All objects of the add-on.
pub fn objects() -> Vec<Value> {
    let meta = json!({ "name": "coredns", "namespace": "kube-system" });
    let labels = json!({ "k8s-app": "kube-dns" });
    let account = json!({ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
                  "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        binding("system:coredns", "system:coredns", account),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "Corefile": COREFILE } }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system",
                "annotations": { "prometheus.io/port": "9153", "prometheus.io/scrape": "true" },
                "labels": { "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
                            "kubernetes.io/name": "CoreDNS" },
            },
            "spec": {
                "clusterIP": DNS_SERVICE,
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
                    { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 },
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "coredns", "namespace": "kube-system", "labels": labels },
            "spec": {
                "replicas": 2,
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod() },
            },
        }),
    ]
}

fn pod() -> Value {
    json!({
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": "coredns",
        "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": { "matchExpressions": [
                    { "key": "k8s-app", "operator": "In", "values": ["kube-dns"] }] },
                "topologyKey": "kubernetes.io/hostname",
            },
        }] } },
        "tolerations": [
            { "key": "CriticalAddonsOnly", "operator": "Exists" },
            { "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" },
        ],
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "dnsPolicy": "Default",
        "containers": [{
            "name": "coredns",
            "image": images::coredns(),
            "imagePullPolicy": "Never",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "resources": { "limits": { "memory": "170Mi" }, "requests": { "cpu": "100m", "memory": "70Mi" } },
            "ports": [
                { "containerPort": 53, "name": "dns", "protocol": "UDP" },
                { "containerPort": 53, "name": "dns-tcp", "protocol": "TCP" },
                { "containerPort": 9153, "name": "metrics", "protocol": "TCP" },
            ],
            "livenessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "initialDelaySeconds": 60,
                               "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 5 },
            // kubeadm leaves the period at 10 s, which is what a start would wait.
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
            "securityContext": { "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                 "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] } },
            "volumeMounts": [{ "mountPath": "/etc/coredns", "name": "config-volume", "readOnly": true }],
        }],
        "volumes": [{ "name": "config-volume",
                      "configMap": { "name": "coredns", "items": [{ "key": "Corefile", "path": "Corefile" }] } }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_plugin_of_the_corefile_is_compiled_in() {
        let named = COREFILE.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' '));
        let named: BTreeSet<_> = named.filter_map(|line| line.split(' ').next()).filter(|word| *word != "}").collect();
        assert_eq!(named, PLUGINS.map(|folder| if folder == "metrics" { "prometheus" } else { folder }).into());
    }
}
