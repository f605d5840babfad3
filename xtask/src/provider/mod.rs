//! Where test clusters come from. A cluster is known to suites and people by its descriptor alone, whoever made it.

pub mod docker;
mod host_settings;
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
            Self::Kind => Ok(()),
            Self::K3d => bail!(
                "provider k3d is not built yet: use --provider kind (Docker) or --provider native (Linux as root; it needs no Docker)"
            ),
        }
    }

    /// The Kubernetes version that is started when none is named.
    pub fn default_version(self) -> &'static str {
        match self {
            Self::Kind => kind::host().release().kubernetes,
            Self::Native | Self::K3d => native::DEFAULT_VERSION,
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
        _ if request.proxy_mode == ProxyMode::None => {
            bail!("provider {} always has a kube-proxy: --proxy-mode none needs --provider kind", provider.name())
        }
        _ => native::up(request, install != Install::Nothing),
    }
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kind => kind::NAME,
            Self::K3d => "k3d",
        }
    }
}

/// Who made a cluster of which there is a descriptor.
fn provider_of(name: &str) -> Option<Provider> {
    let descriptor = Descriptor::load(&Places::new(name)).ok().flatten()?;
    Some(if descriptor.provider == kind::NAME { Provider::Kind } else { Provider::Native })
}

fn is_of_kind(name: &str) -> bool {
    provider_of(name) == Some(Provider::Kind) || kind::names().iter().any(|other| other == name)
}

/// The names of all clusters of which anything is left.
pub fn names() -> Vec<String> {
    let all: BTreeSet<String> = teardown::names().into_iter().chain(kind::names()).collect();
    all.into_iter().collect()
}

/// The running members of a cluster, by name.
pub fn running(name: &str) -> Vec<String> {
    if is_of_kind(name) { kind::running(name) } else { native::running(name) }
}

/// Ends all that belongs to the cluster. With `keep_client` the external client stays, with what runs in it, for the next
/// cluster of this name.
pub fn down(name: &str, keep_client: bool) -> Result<()> {
    if is_of_kind(name) { kind::down(name, keep_client) } else { teardown::down(name, keep_client) }
}

/// Ends what a killed run left that belongs to no cluster.
pub fn close() -> Result<()> {
    kind::close()
}

/// Keeps what can be learnt of a cluster on which something went wrong, and says where.
pub fn keep_evidence(name: &str) -> Result<Option<PathBuf>> {
    if is_of_kind(name) { kind::keep_evidence(name) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_is_not_there_says_what_to_use_instead() {
        let said = Provider::K3d.require().map_or_else(|e| e.to_string(), |()| String::new());
        assert!(said.contains("--provider native"), "{said}");
    }
}
