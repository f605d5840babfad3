//! The images of the cluster's own pods, made here from the built programs and kept in the cache.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::build::{self, Programs};
use super::kube_proxy;
use crate::image::{self, Image};

/// What holds a pod's namespaces.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";

/// kubeadm's name of the image.
pub fn kube_proxy(version: &str) -> String {
    format!("registry.k8s.io/kube-proxy:{version}")
}

/// kubeadm's name of the image.
pub fn coredns() -> String {
    format!("registry.k8s.io/coredns/coredns:{}", build::COREDNS)
}

/// The archive with all three, made if it is not in the cache.
pub fn ensure(version: &str, programs: &Programs) -> Result<PathBuf> {
    let name = |folder: &Path| folder.file_name().unwrap_or_default().display().to_string();
    let (dns, pause) = (name(&programs.coredns), name(&programs.pause));
    let archive = build::cache_folder()?.join(format!("images-{version}-{dns}-{pause}-1.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    let proxy = programs.kubernetes.join("kube-proxy");
    let dns = programs.coredns.join("coredns");
    let pause = programs.pause.join("pause");
    let mut points = kube_proxy::mount_points();
    points.extend(["/run", "/tmp", "/var/lib/kube-proxy"]);
    let (proxy_name, dns_name) = (kube_proxy(version), coredns());
    image::write(
        &archive,
        &[
            Image { name: &proxy_name, program: &proxy, entrypoint: "/kube-proxy", folders: &points },
            Image { name: &dns_name, program: &dns, entrypoint: "/coredns", folders: &["/tmp"] },
            Image { name: PAUSE, program: Path::new(&pause), entrypoint: "/pause", folders: &[] },
        ],
    )?;
    Ok(archive)
}
