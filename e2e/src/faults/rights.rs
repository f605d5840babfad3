//! Users who may do less than the command would like.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::json;

use crate::cluster::Cluster;
use crate::faults::{Fault, kubeconfig};

/// Whom [`only_view`] lets view.
pub const VIEWER: &str = "bookaccess-e2e-viewer";

/// A user with the ClusterRole `view` and nothing more: no nodes, no proxies, no port-forward.
pub fn only_view() -> Fault {
    let bind = |cluster: &Cluster| -> Result<()> {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": VIEWER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": VIEWER}],
        });
        cluster.apply(&binding.to_string())
    };
    Fault::new("a user may only view", bind, |cluster: &Cluster| {
        cluster.kubectl(&["delete", "clusterrolebinding", VIEWER, "--ignore-not-found"]).map(drop)
    })
}

/// Where [`ended`] leaves a kubeconfig, on the client.
pub const ENDED: &str = "/run/bookaccess-e2e-ended.kubeconfig";

/// A kubeconfig of the cluster's administrator whose certificate ended yesterday.
pub fn ended() -> Fault {
    let write = |cluster: &Cluster| {
        let (certificate, key) = yesterdays(cluster)?;
        let base64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        kubeconfig::write(cluster, ENDED, |config| {
            config["users"][0]["user"] =
                json!({"client-certificate-data": base64(certificate), "client-key-data": base64(key)});
            Ok(())
        })
    };
    let remove = |cluster: &Cluster| kubeconfig::remove(cluster, ENDED);
    Fault::new("the credentials have ended", write, remove)
}

/// An administrator's certificate that ended yesterday, and its key: PEM, signed by the cluster's own authority.
fn yesterdays(cluster: &Cluster) -> Result<(String, String)> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let authority = KeyPair::from_pem(&cluster.control_plane()?.place.shell("cat /etc/kubernetes/pki/ca.key")?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let issuer = Issuer::new(params, authority);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "kubeadm:cluster-admins");
    params.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let yesterday = SystemTime::now().checked_sub(DAY).context("a clock before 1970")?;
    params.not_before = (yesterday - DAY).into();
    params.not_after = yesterday.into();
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}
