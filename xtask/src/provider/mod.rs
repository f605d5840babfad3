//! Where test clusters come from. A cluster is known to suites and people by its descriptor alone, whoever made it.

pub mod docker;
mod host_settings;
pub mod k3d;
pub mod kind;
pub mod native;
pub mod standin;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail};

use docker::cluster;
use k3d::testcontainers;
use native::descriptor::Descriptor;
use native::plan::{Places, ProxyMode, Request};
use native::teardown;

/// What can hold a test cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// The real Kubernetes programs in network namespaces of this machine (Linux, root, no Docker)
    #[default]
    Native,
    /// kind: nodes as containers of Docker, or of podman (KIND_EXPERIMENTAL_PROVIDER=podman)
    Kind,
    /// k3d: k3s nodes as Docker containers
    K3d,
    /// testcontainers: one node of k3s without kube-proxy, as long as a suite runs
    Testcontainers,
}

/// What may be installed on the machine when it is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Install {
    /// What the provider installs by itself.
    #[default]
    Usual,
    /// Nothing.
    Nothing,
    /// Docker and a daemon of our own as well.
    Docker,
}

impl Provider {
    /// Fails with what to do instead where no such cluster can be held here. With `install` what can be installed is no
    /// hindrance.
    pub fn require(self, version: &str, proxy_mode: ProxyMode, install: bool, image: Option<&str>) -> Result<()> {
        match self {
            Self::Native if proxy_mode == ProxyMode::None => {
                bail!("provider native always has a kube-proxy: --proxy-mode none needs --provider kind or k3d")
            }
            Self::Native => native::require_machine(),
            Self::Kind => kind::require(version, install),
            Self::K3d => k3d::require(version).map(drop),
            Self::Testcontainers => testcontainers::require(version, image).map(drop),
        }
    }

    /// The Kubernetes version that is started when none is named.
    pub fn default_version(self) -> &'static str {
        match self {
            Self::Kind => kind::host().release().kubernetes,
            Self::K3d | Self::Testcontainers => k3d::default_version(),
            Self::Native => native::DEFAULT_VERSION,
        }
    }
}

/// Brings a cluster up and gives its description; on any failure nothing of it is left.
pub fn up(provider: Provider, request: Request, install: Install) -> Result<Descriptor> {
    if let Some(running) = provider_of(&request.name)
        && running != provider
    {
        bail!(
            "cluster {name} is one of provider {}: end it first (cargo xtask cluster down --name {name}), or choose another name",
            running.name(),
            name = request.name
        );
    }
    match provider {
        Provider::Kind => kind::up(request, install == Install::Docker),
        Provider::K3d => k3d::up(request, install == Install::Docker),
        Provider::Testcontainers => testcontainers::up(&request),
        Provider::Native => {
            provider.require(&request.version, request.proxy_mode, false, None)?;
            native::up(request, install != Install::Nothing)
        }
    }
}

impl Provider {
    /// As a descriptor has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kind => kind::NAME,
            Self::K3d => k3d::NAME,
            Self::Testcontainers => testcontainers::NAME,
        }
    }
}

/// Who made a cluster of which there is a descriptor.
fn provider_of(name: &str) -> Option<Provider> {
    let descriptor = Descriptor::load(&Places::new(name)).ok().flatten()?;
    Some(match descriptor.provider.as_str() {
        kind::NAME => Provider::Kind,
        k3d::NAME => Provider::K3d,
        testcontainers::NAME => Provider::Testcontainers,
        _ => Provider::Native,
    })
}

/// Whether its members are containers, whichever command made them.
fn is_in_docker(name: &str) -> bool {
    provider_of(name).is_some_and(|provider| provider != Provider::Native)
        || cluster::names().iter().any(|other| other == name)
}

/// The names of all clusters of which anything is left.
pub fn names() -> Vec<String> {
    let all: BTreeSet<String> = teardown::names().into_iter().chain(cluster::names()).collect();
    all.into_iter().collect()
}

/// The running members of a cluster, by name.
pub fn running(name: &str) -> Vec<String> {
    if is_in_docker(name) { cluster::running(name) } else { native::running(name) }
}

/// Ends all that belongs to the cluster. With `keep_client` the external client stays, with what runs in it, for the next
/// cluster of this name.
pub fn down(name: &str, keep_client: bool) -> Result<()> {
    if is_in_docker(name) { cluster::down(name, keep_client) } else { teardown::down(name, keep_client) }
}

/// Ends what a killed run left that belongs to no cluster.
pub fn close() -> Result<()> {
    cluster::close()
}

/// Keeps what can be learnt of a cluster on which something went wrong, and says where.
pub fn keep_evidence(name: &str) -> Result<Option<PathBuf>> {
    match provider_of(name) {
        Some(Provider::K3d) => k3d::keep_evidence(name),
        Some(Provider::Testcontainers) => testcontainers::keep_evidence(name),
        _ if is_in_docker(name) => kind::keep_evidence(name),
        _ => Ok(None),
    }
}
