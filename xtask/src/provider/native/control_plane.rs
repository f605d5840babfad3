//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with the flags kubeadm gives them, and what
//! kubeadm puts into a fresh cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::build::Programs;
use super::pki::ADMIN_GROUP;
use super::plan::Plan;
use super::processes::Running;
use crate::run;

const PKI: &str = "/etc/kubernetes/pki";

/// Starts etcd and the API server and waits until it is ready.
pub fn start_api(plan: &Plan, programs: &Programs, on: &Running) -> Result<()> {
    let log = |name: &str| plan.places.log(&on.member, name);
    on.daemon(&log("etcd"), &[], &etcd())?;
    on.daemon(&log("kube-apiserver"), &[], &api_server(plan, programs))?;
    run::wait_for("the API server", Duration::from_secs(60), || {
        kubectl(on, programs, &["get", "--raw", "/readyz"]).map(drop)
    })
    .map_err(|e| with_log(e, plan, &on.member, "kube-apiserver"))
}

/// Starts the controller-manager and the scheduler.
pub fn start_controllers(plan: &Plan, programs: &Programs, on: &Running) -> Result<()> {
    for (name, argv) in
        [("kube-controller-manager", controller_manager(plan, programs)), ("kube-scheduler", scheduler(programs))]
    {
        on.daemon(&plan.places.log(&on.member, name), &[], &argv)?;
    }
    Ok(())
}

/// Adds the end of a program's log to an error.
pub fn with_log(error: anyhow::Error, plan: &Plan, member: &str, program: &str) -> anyhow::Error {
    if run::interrupted() {
        return error;
    }
    let path = plan.places.log(member, program);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(8)..].join("\n");
    error.context(format!("{program} on {member} said last:\n{end}\n"))
}

/// kubectl with an administrator's rights from the first moment.
pub fn kubectl(on: &Running, programs: &Programs, args: &[&str]) -> Result<String> {
    let mut argv = kubectl_argv(programs);
    argv.extend(args.iter().map(ToString::to_string));
    on.run(&argv)
}

/// Creates the objects in one go.
pub fn apply(on: &Running, programs: &Programs, objects: &[Value]) -> Result<()> {
    let mut argv = kubectl_argv(programs);
    argv.extend(["create", "--save-config=false", "-f", "-"].map(String::from));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    on.feed(&argv, &list.to_string()).map(drop).context("creating the cluster's objects")
}

fn kubectl_argv(programs: &Programs) -> Vec<String> {
    vec![
        programs.kubernetes.join("kubectl").display().to_string(),
        "--kubeconfig=/etc/kubernetes/super-admin.conf".to_owned(),
        "--request-timeout=10s".to_owned(),
    ]
}

/// What `kubeadm init` writes besides its add-ons: the nodes with their roles, the administrators' binding, the
/// configuration it remembers. The Nodes exist before their kubelets, so that each has the pod network its routes
/// were made for.
pub fn objects(plan: &Plan) -> Vec<Value> {
    let mut objects: Vec<Value> = plan
        .nodes
        .iter()
        .map(|node| {
            let mut labels = json!({
                "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(),
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch(),
            });
            let mut spec = json!({ "podCIDR": node.pod_cidr(), "podCIDRs": node.pod_cidrs() });
            if node.control_plane {
                labels["node-role.kubernetes.io/control-plane"] = json!("");
                labels["node.kubernetes.io/exclude-from-external-load-balancers"] = json!("");
                spec["taints"] = json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }]);
            }
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": node.name, "labels": labels,
                              "annotations": { "node.alpha.kubernetes.io/ttl": "0" } },
                "spec": spec,
            })
        })
        .collect();
    let group = |name: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name });
    objects.push(binding("kubeadm:cluster-admins", "cluster-admin", group(ADMIN_GROUP)));
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kubeadm-config", "namespace": "kube-system" },
        "data": { "ClusterConfiguration": cluster_configuration(plan) },
    }));
    objects
}

/// A ClusterRoleBinding.
pub fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

fn cluster_configuration(plan: &Plan) -> String {
    format!(
        "apiServer: {{}}
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: {PKI}
clusterName: kubernetes
controllerManager: {{}}
dns: {{}}
encryptionAlgorithm: ECDSA-P256
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: {}
networking:
  dnsDomain: cluster.local
  podSubnet: {}
  serviceSubnet: {}
proxy: {{}}
scheduler: {{}}
",
        plan.request.version,
        plan.pod_ranges(),
        plan.service_ranges()
    )
}

/// Kubernetes' name of this machine's architecture.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn etcd() -> Vec<String> {
    // On the member's tmpfs, without fsync: the data is not to outlive the cluster.
    [
        "etcd",
        "--name=cp1",
        "--data-dir=/run/etcd",
        "--unsafe-no-fsync",
        "--listen-client-urls=https://127.0.0.1:2379",
        "--advertise-client-urls=https://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--client-cert-auth",
        "--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
        "--cert-file=/etc/kubernetes/pki/etcd/server.crt",
        "--key-file=/etc/kubernetes/pki/etcd/server.key",
    ]
    .map(String::from)
    .to_vec()
}

fn api_server(plan: &Plan, programs: &Programs) -> Vec<String> {
    let mut argv = vec![programs.kubernetes.join("kube-apiserver").display().to_string()];
    argv.extend([
        format!("--advertise-address={}", plan.control_plane().address),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        format!("--client-ca-file={PKI}/ca.crt"),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--enable-bootstrap-token-auth=true".into(),
        format!("--etcd-cafile={PKI}/etcd/ca.crt"),
        format!("--etcd-certfile={PKI}/apiserver-etcd-client.crt"),
        format!("--etcd-keyfile={PKI}/apiserver-etcd-client.key"),
        "--etcd-servers=https://127.0.0.1:2379".into(),
        format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
        format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".into(),
        format!("--proxy-client-cert-file={PKI}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={PKI}/front-proxy-client.key"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--secure-port=6443".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={PKI}/sa.pub"),
        format!("--service-account-signing-key-file={PKI}/sa.key"),
        format!("--service-cluster-ip-range={}", plan.service_ranges()),
        format!("--tls-cert-file={PKI}/apiserver.crt"),
        format!("--tls-private-key-file={PKI}/apiserver.key"),
    ]);
    argv
}

fn controller_manager(plan: &Plan, programs: &Programs) -> Vec<String> {
    let config = "/etc/kubernetes/controller-manager.conf";
    let mut argv = vec![programs.kubernetes.join("kube-controller-manager").display().to_string()];
    argv.extend([
        "--allocate-node-cidrs=true".into(),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--bind-address=127.0.0.1".into(),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--cluster-cidr={}", plan.pod_ranges()),
        "--cluster-name=kubernetes".into(),
        format!("--cluster-signing-cert-file={PKI}/ca.crt"),
        format!("--cluster-signing-key-file={PKI}/ca.key"),
        // Without kubeadm's signer of certificate requests, which watches its files with four inotify instances.
        "--controllers=*,bootstrapsigner,tokencleaner,-certificatesigningrequest-signing-controller".into(),
        format!("--kubeconfig={config}"),
        // kubeadm leaves the defaults of 20 and 30, with which the controllers need 5 s to get their tokens.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        LEASE[0].into(),
        LEASE[1].into(),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        format!("--root-ca-file={PKI}/ca.crt"),
        format!("--service-account-private-key-file={PKI}/sa.key"),
        format!("--service-cluster-ip-range={}", plan.service_ranges()),
        "--use-service-account-credentials=true".into(),
    ]);
    argv
}

/// There is nobody to elect against, but the Lease shows that they live. It outlasts an API server that is away for half a
/// minute: whoever loses it ends, and here nobody would start it again.
const LEASE: [&str; 2] = ["--leader-elect-lease-duration=60s", "--leader-elect-renew-deadline=45s"];

fn scheduler(programs: &Programs) -> Vec<String> {
    let config = "/etc/kubernetes/scheduler.conf";
    vec![
        programs.kubernetes.join("kube-scheduler").display().to_string(),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--bind-address=127.0.0.1".into(),
        format!("--kubeconfig={config}"),
        LEASE[0].into(),
        LEASE[1].into(),
    ]
}
