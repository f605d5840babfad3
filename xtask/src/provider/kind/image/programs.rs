//! What of a node is built from Go modules: which programs, in which version, and in which image each lies.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{CNI, STORE};
use crate::provider::native::build;
use crate::run;

/// The newest containerd whose configuration kind v0.30.0 can read: `kind load` asks for it.
const CONTAINERD: &str = "v2.2.9";

/// What containerd keeps its database with.
const BBOLT: (&str, &str) = ("go.etcd.io/bbolt", "v1.4.3");

/// The name of the pod network's image.
pub const CNI_IMAGE: &str = "bookaccess.local/pod-network:1";

/// The built programs' folders, and the images that kubeadm of this version wants.
pub struct Programs {
    pub kubernetes: PathBuf,
    pub kubeadm: PathBuf,
    pub containerd: PathBuf,
    /// With `store`, which copies a containerd's database.
    pub store: PathBuf,
    pub images: Vec<Image>,
    /// The name of the image that holds a pod's namespaces.
    pub pause: String,
}

/// An image with one program.
#[derive(Debug, PartialEq)]
pub struct Image {
    pub name: String,
    /// The program on this machine.
    pub program: PathBuf,
    /// Its place in the image, without the leading slash.
    pub place: &'static str,
    /// What of the node's system the program runs.
    pub tools: &'static [&'static str],
}

/// What kube-proxy runs in each of its modes, and the names of protocols by which it knows its own elements again.
const KUBE_PROXY_TOOLS: &[&str] = &[
    "etc/protocols",
    "usr/sbin/conntrack",
    "usr/sbin/ip6tables",
    "usr/sbin/ip6tables-restore",
    "usr/sbin/ip6tables-save",
    "usr/sbin/iptables",
    "usr/sbin/iptables-restore",
    "usr/sbin/iptables-save",
    "usr/sbin/nft",
];

impl Programs {
    /// Builds what is not in the cache yet.
    pub fn ensure(version: &str) -> Result<Self> {
        let kubeadm = build::kubeadm(version)?;
        let names = run::output(&mut run::command(&[
            kubeadm.join("kubeadm").as_os_str(),
            "config".as_ref(),
            "images".as_ref(),
            "list".as_ref(),
            format!("--kubernetes-version={version}").as_ref(),
        ]))
        .context("asking kubeadm for its images")?;
        let kubernetes = build::kubernetes(version)?;
        let mut images = Vec::new();
        let mut pause = None;
        for name in names.lines() {
            let image = image(name, &kubernetes)?;
            if image.place == "pause" {
                pause = Some(image.name.clone());
            }
            images.push(image);
        }
        let cni = build::own("pod-network", CNI, &[])?;
        images.push(Image {
            name: CNI_IMAGE.into(),
            program: cni.join("pod-network"),
            place: "usr/local/bin/pod-network",
            tools: &["usr/sbin/ip"],
        });
        let pause = pause.context("kubeadm names no pause image")?;
        let containerd = build::containerd(CONTAINERD)?;
        let store = build::own("store", STORE, &[BBOLT])?;
        Ok(Self { kubernetes, kubeadm, containerd, store, images, pause })
    }
}

/// The program of an image that kubeadm names, built in the version that the name says.
fn image(name: &str, kubernetes: &Path) -> Result<Image> {
    let (program, place): (PathBuf, _) = match component(name)? {
        Component::ApiServer => (kubernetes.join("kube-apiserver"), "usr/local/bin/kube-apiserver"),
        Component::ControllerManager => {
            (kubernetes.join("kube-controller-manager"), "usr/local/bin/kube-controller-manager")
        }
        Component::Scheduler => (kubernetes.join("kube-scheduler"), "usr/local/bin/kube-scheduler"),
        Component::KubeProxy => (kubernetes.join("kube-proxy"), "usr/local/bin/kube-proxy"),
        Component::CoreDns(version) => (build::coredns(&version)?.join("coredns"), "coredns"),
        Component::Pause => (build::pause()?.join("pause"), "pause"),
        Component::Etcd(version) => (build::etcd(&version)?.join("server"), "usr/local/bin/etcd"),
    };
    let tools = if place.ends_with("kube-proxy") { KUBE_PROXY_TOOLS } else { &[] };
    Ok(Image { name: name.to_owned(), program, place, tools })
}

#[derive(Debug, PartialEq)]
enum Component {
    ApiServer,
    ControllerManager,
    Scheduler,
    KubeProxy,
    /// With its module's version, as etcd.
    CoreDns(String),
    Pause,
    Etcd(String),
}

/// What an image holds, by kubeadm's name of it.
fn component(name: &str) -> Result<Component> {
    let (repository, tag) = name.rsplit_once(':').with_context(|| format!("{name:?} names no image with a tag"))?;
    Ok(match repository.rsplit('/').next().unwrap_or_default() {
        "kube-apiserver" => Component::ApiServer,
        "kube-controller-manager" => Component::ControllerManager,
        "kube-scheduler" => Component::Scheduler,
        "kube-proxy" => Component::KubeProxy,
        "coredns" => Component::CoreDns(tag.to_owned()),
        "pause" => Component::Pause,
        // etcd's version and the number of its image.
        "etcd" => Component::Etcd(format!("v{}", tag.split('-').next().unwrap_or(tag))),
        _ => bail!("kubeadm wants the image {name}, which nobody here knows how to build"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kubeadms_names_say_what_to_build() {
        let of = |name: &str| component(name).unwrap();
        assert_eq!(of("registry.k8s.io/kube-proxy:v1.34.4"), Component::KubeProxy);
        assert_eq!(of("registry.k8s.io/coredns/coredns:v1.12.1"), Component::CoreDns("v1.12.1".into()));
        assert_eq!(of("registry.k8s.io/etcd:3.6.5-0"), Component::Etcd("v3.6.5".into()));
        assert_eq!(of("registry.k8s.io/pause:3.10.1"), Component::Pause);
        assert!(component("registry.k8s.io/something:1").is_err());
    }
}
