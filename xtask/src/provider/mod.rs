//! Where test clusters come from.

pub mod kind;
pub mod native;

use anyhow::{Result, bail};

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

impl Provider {
    /// Fails with what to do instead when this provider cannot be used yet.
    pub fn require(self) -> Result<()> {
        let name = match self {
            Self::Native => return Ok(()),
            Self::Kind => "kind",
            Self::K3d => "k3d",
        };
        bail!("provider {name} is not built yet: use --provider native (Linux as root; it needs no Docker)")
    }
}

#[cfg(test)]
mod tests {
    use super::Provider;

    #[test]
    fn only_native_is_there() {
        assert!(Provider::Native.require().is_ok());
        for provider in [Provider::Kind, Provider::K3d] {
            let said = provider.require().map_or_else(|e| e.to_string(), |()| String::new());
            assert!(said.contains("--provider native"), "{said}");
        }
    }
}
