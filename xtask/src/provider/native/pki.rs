//! The cluster's certificates, laid out and named as kubeadm does, and the kubeconfigs that carry them.

use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::dual_stack::PUBLIC_ADDRESS_V6;
use super::files;
use super::plan::{API_SERVICE, PUBLIC_ADDRESS, Plan};

/// The group that kubeadm's admin.conf has, bound to cluster-admin.
pub const ADMIN_GROUP: &str = "kubeadm:cluster-admins";

/// A certificate and its key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// One of the cluster's own authorities.
pub struct Authority {
    pub pem: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = distinguished(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, key: key.serialize_pem(), issuer: Issuer::new(params, key) })
    }

    /// Signs a certificate for a client (user and groups) or, with names, for a server.
    pub fn issue(&self, name: &str, groups: &[&str], server_names: &[String]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(server_names)?;
        params.distinguished_name = distinguished(name, groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !server_names.is_empty() {
            // Both, as kubeadm's etcd certificate has them: etcd calls itself with it.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

fn distinguished(name: &str, groups: &[&str]) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    // One organization: rcgen keeps one value a type, and none of kubeadm's certificates has more.
    if let Some(group) = groups.first() {
        dn.push(DnType::OrganizationName, *group);
    }
    dn.push(DnType::CommonName, name);
    dn
}

/// All files of /etc/kubernetes on the control plane, of /etc/kubernetes on each worker, and the client's kubeconfig.
pub struct Pki {
    ca: Authority,
}

impl Pki {
    pub fn new() -> Result<Self> {
        Ok(Self { ca: Authority::new("kubernetes")? })
    }

    /// Writes the control plane's /etc/kubernetes below `folder`.
    pub fn control_plane(&self, plan: &Plan, folder: &Path) -> Result<()> {
        let node = plan.control_plane();
        let pki = folder.join("pki");
        let put = |name: &str, text: &str| files::write(&pki.join(name), text);
        let put_pair = |name: &str, identity: &Identity| -> Result<()> {
            files::write(&pki.join(format!("{name}.crt")), &identity.certificate)?;
            files::write_private(&pki.join(format!("{name}.key")), &identity.key)
        };
        put("ca.crt", &self.ca.pem)?;
        files::write_private(&pki.join("ca.key"), &self.ca.key)?;
        let mut names: Vec<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
        ]
        .map(String::from)
        .to_vec();
        names.extend([
            node.name.clone(),
            node.address.to_string(),
            API_SERVICE.to_string(),
            PUBLIC_ADDRESS.to_string(),
        ]);
        if let Some(v6) = &node.v6 {
            names.extend([v6.address.to_string(), PUBLIC_ADDRESS_V6.to_string()]);
        }
        put_pair("apiserver", &self.ca.issue("kube-apiserver", &[], &names)?)?;
        put_pair("apiserver-kubelet-client", &self.ca.issue("kube-apiserver-kubelet-client", &[ADMIN_GROUP], &[])?)?;
        let front = Authority::new("front-proxy-ca")?;
        put("front-proxy-ca.crt", &front.pem)?;
        put_pair("front-proxy-client", &front.issue("front-proxy-client", &[], &[])?)?;
        let etcd = Authority::new("etcd-ca")?;
        put("etcd/ca.crt", &etcd.pem)?;
        let etcd_names = vec![node.name.clone(), "localhost".into(), "127.0.0.1".into()];
        put_pair("etcd/server", &etcd.issue(&node.name, &[], &etcd_names)?)?;
        put_pair("apiserver-etcd-client", &etcd.issue("kube-apiserver-etcd-client", &[], &[])?)?;
        let accounts = KeyPair::generate()?;
        put("sa.pub", &accounts.public_key_pem())?;
        files::write_private(&pki.join("sa.key"), &accounts.serialize_pem())?;

        let server = format!("https://{}:6443", node.address);
        let config =
            |file: &str, user: &str, groups: &[&str]| self.kubeconfig(&folder.join(file), &server, user, groups);
        config("admin.conf", "kubernetes-admin", &[ADMIN_GROUP])?;
        config("super-admin.conf", "kubernetes-super-admin", &["system:masters"])?;
        config("controller-manager.conf", "system:kube-controller-manager", &[])?;
        config("scheduler.conf", "system:kube-scheduler", &[])
    }

    /// Writes a node's kubelet.conf and the CA below `folder`.
    pub fn node(&self, plan: &Plan, name: &str, folder: &Path) -> Result<()> {
        files::write(&folder.join("pki/ca.crt"), &self.ca.pem)?;
        let server = format!("https://{}:6443", plan.control_plane().address);
        self.kubeconfig(&folder.join("kubelet.conf"), &server, &format!("system:node:{name}"), &["system:nodes"])
    }

    /// Writes the external client's kubeconfig: the public address, an administrator's rights.
    pub fn client(&self, file: &Path) -> Result<()> {
        self.kubeconfig(file, &format!("https://{PUBLIC_ADDRESS}:6443"), "kubernetes-admin", &[ADMIN_GROUP])
    }

    fn kubeconfig(&self, file: &Path, server: &str, user: &str, groups: &[&str]) -> Result<()> {
        let identity = self.ca.issue(user, groups, &[])?;
        files::write_private(file, &kubeconfig(&self.ca.pem, server, user, &identity))
    }
}

fn kubeconfig(ca: &str, server: &str, user: &str, identity: &Identity) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: {}
    server: {server}
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: {user}
  name: {user}@kubernetes
current-context: {user}@kubernetes
users:
- name: {user}
  user:
    client-certificate-data: {}
    client-key-data: {}
",
        base64(ca.as_bytes()),
        base64(identity.certificate.as_bytes()),
        base64(identity.key.as_bytes())
    )
}

/// Standard base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |sum, b| sum << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (group >> (18 - 6 * place)) & 63;
                text.push(char::from(LETTERS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn base64_is_rfc_4648s() {
        let seen: Vec<_> =
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].iter().map(|t| base64(t.as_bytes())).collect();
        assert_eq!(seen, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn issues_certificates_for_clients_and_servers() {
        let ca = Authority::new("kubernetes").unwrap();
        let client = ca.issue("system:node:w1", &["system:nodes"], &[]).unwrap();
        assert!(client.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let server = ca.issue("kube-apiserver", &[], &["203.0.113.10".into(), "cp1".into()]).unwrap();
        let text = kubeconfig(&ca.pem, "https://203.0.113.10:6443", "a", &server);
        assert!(text.contains("    server: https://203.0.113.10:6443\n"), "{text}");
    }
}
