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

use native::descriptor::Descriptor;
use native::plan::{Places, ProxyMode, Request};
use native::teardown;

/// What can hold a test cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// The real Kubernetes programs in network namespaces of this machine (Linux, root, no Docker)
    #[default]
    Native,
    /// kind: nodes as Docker containers
    Kind,
    /// k3d: k3s nodes as Docker containers
    K3d,
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
    /// Fails with what to do instead where this provider cannot be used.
    pub fn require(self) -> Result<()> {
        match self {
            Self::Native => native::require_machine(),
            Self::Kind | Self::K3d => Ok(()),
        }
    }

    /// The Kubernetes version that is started when none is named.
    pub fn default_version(self) -> &'static str {
        match self {
            Self::Kind => kind::host().release().kubernetes,
            Self::K3d => k3d::default_version(),
            Self::Native => native::DEFAULT_VERSION,
        }
    }
}

/// Brings a cluster up and gives its description; on any failure nothing of it is left.
pub fn up(provider: Provider, request: Request, install: Install) -> Result<Descriptor> {
    provider.require()?;
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
        Provider::Native if request.proxy_mode == ProxyMode::None => {
            bail!("provider native always has a kube-proxy: --proxy-mode none needs --provider kind or k3d")
        }
        Provider::Native => native::up(request, install != Install::Nothing),
    }
}

impl Provider {
    /// As a descriptor has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kind => kind::NAME,
            Self::K3d => k3d::NAME,
        }
    }
}

/// Who made a cluster of which there is a descriptor.
fn provider_of(name: &str) -> Option<Provider> {
    let descriptor = Descriptor::load(&Places::new(name)).ok().flatten()?;
    Some(match descriptor.provider.as_str() {
        kind::NAME => Provider::Kind,
        k3d::NAME => Provider::K3d,
        _ => Provider::Native,
    })
}

/// Whether its members are containers, whichever command made them.
fn is_in_docker(name: &str) -> bool {
    matches!(provider_of(name), Some(Provider::Kind | Provider::K3d)) || kind::names().iter().any(|other| other == name)
}

/// The names of all clusters of which anything is left.
pub fn names() -> Vec<String> {
    let all: BTreeSet<String> = teardown::names().into_iter().chain(kind::names()).collect();
    all.into_iter().collect()
}

/// The running members of a cluster, by name.
pub fn running(name: &str) -> Vec<String> {
    if is_in_docker(name) { kind::running(name) } else { native::running(name) }
}

/// Ends all that belongs to the cluster. With `keep_client` the external client stays, with what runs in it, for the next
/// cluster of this name.
pub fn down(name: &str, keep_client: bool) -> Result<()> {
    if is_in_docker(name) { kind::down(name, keep_client) } else { teardown::down(name, keep_client) }
}

/// Ends what a killed run left that belongs to no cluster.
pub fn close() -> Result<()> {
    kind::close()
}

/// Keeps what can be learnt of a cluster on which something went wrong, and says where.
pub fn keep_evidence(name: &str) -> Result<Option<PathBuf>> {
    match provider_of(name) {
        Some(Provider::K3d) => k3d::keep_evidence(name),
        _ if is_in_docker(name) => kind::keep_evidence(name),
        _ => Ok(None),
    }
}
