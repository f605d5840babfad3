//! kube-proxy as kubeadm ships it: a DaemonSet with its ConfigMap, ServiceAccount and binding. Its image has no
//! system below it, so the node's own iptables, nft and conntrack are mounted in.

use serde_json::{Value, json};

use super::control_plane::binding;
use super::images;
use super::plan::Plan;

/// The node's folders that hold the tools and their libraries: where they are in the pod, where on the node.
const TOOLS: &[(&str, &str, &str)] = &[
    ("usr", "/usr", "/usr"),
    ("lib", "/lib", "/usr/lib"),
    ("lib64", "/lib64", "/usr/lib64"),
    ("bin", "/bin", "/usr/bin"),
    ("sbin", "/sbin", "/usr/sbin"),
    ("alternatives", "/etc/alternatives", "/etc/alternatives"),
];

/// Names of protocols. Without it `nft -j` prints their numbers, kube-proxy takes the elements that it finds at its
/// start for others than its own, and removes them: other Services' elements, those of DNS among them, are lost.
const PROTOCOLS: &str = "/etc/protocols";

/// The mount points of [`TOOLS`], which its image must have.
pub fn mount_points() -> Vec<&'static str> {
    TOOLS.iter().map(|(_, inside, _)| *inside).collect()
}

/// All objects of the add-on.
pub fn objects(plan: &Plan) -> Vec<Value> {
    let account = json!({ "kind": "ServiceAccount", "name": "kube-proxy", "namespace": "kube-system" });
    vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        }),
        binding("kubeadm:node-proxier", "system:node-proxier", account),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "kube-proxy", "namespace": "kube-system", "labels": { "app": "kube-proxy" } },
            "data": { "config.conf": configuration(plan), "kubeconfig.conf": kubeconfig(plan) },
        }),
        daemon_set(plan),
    ]
}

fn configuration(plan: &Plan) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: {}
configSyncPeriod: 0s
conntrack:
  maxPerCore: 0
  min: 0
  tcpCloseWaitTimeout: 0s
  tcpEstablishedTimeout: 0s
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
kind: KubeProxyConfiguration
metricsBindAddress: \"\"
mode: {}
nodePortAddresses: null
oomScoreAdj: 0
portRange: \"\"
showHiddenMetricsForVersion: \"\"
",
        plan.pod_ranges(),
        plan.request.proxy_mode.name()
    )
}

fn kubeconfig(plan: &Plan) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: https://{}:6443
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
",
        plan.control_plane().address
    )
}

fn daemon_set(plan: &Plan) -> Value {
    let mut mounts = vec![
        json!({ "mountPath": "/var/lib/kube-proxy", "name": "kube-proxy" }),
        json!({ "mountPath": "/run/xtables.lock", "name": "xtables-lock" }),
    ];
    let mut volumes = vec![
        json!({ "name": "kube-proxy", "configMap": { "name": "kube-proxy" } }),
        json!({ "name": "xtables-lock", "hostPath": { "path": "/run/xtables.lock", "type": "FileOrCreate" } }),
    ];
    mounts.push(json!({ "mountPath": PROTOCOLS, "name": "protocols", "readOnly": true }));
    volumes.push(json!({ "name": "protocols", "hostPath": { "path": PROTOCOLS, "type": "File" } }));
    // kubeadm's mount of /lib/modules is part of the node's whole /lib here.
    for (name, inside, outside) in TOOLS {
        mounts.push(json!({ "mountPath": inside, "name": name, "readOnly": true }));
        volumes.push(json!({ "name": name, "hostPath": { "path": outside } }));
    }
    let labels = json!({ "k8s-app": "kube-proxy" });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system", "labels": labels },
        "spec": {
            "selector": { "matchLabels": labels },
            "updateStrategy": { "type": "RollingUpdate" },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "hostNetwork": true,
                    "serviceAccountName": "kube-proxy",
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [{
                        "name": "kube-proxy",
                        "image": images::kube_proxy(&plan.request.version),
                        "imagePullPolicy": "Never",
                        "command": ["/kube-proxy", "--config=/var/lib/kube-proxy/config.conf",
                                    "--hostname-override=$(NODE_NAME)"],
                        "env": [{ "name": "NODE_NAME",
                                  "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                                { "name": "PATH", "value": "/usr/sbin:/usr/bin:/sbin:/bin" }],
                        "securityContext": { "privileged": true },
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    })
}
