//! Ways to break a cluster, as data: a name, how to inject it, how to heal it. One file a way.

mod background;
pub mod daemon;
pub mod firewall;
pub mod kube_proxy;
pub mod kube_proxy_config;
mod kubeconfig;
pub mod ours;
pub mod policy;
pub mod recovery;
pub mod rights;
pub mod route;
pub mod rules;
pub mod second_card;
pub mod security_group;
pub mod service;
#[cfg(target_os = "linux")]
pub mod slow;
pub mod workload;

use anyhow::Result;

use crate::cluster::Cluster;

type Act = Box<dyn Fn(&Cluster) -> Result<()> + Send + Sync>;

/// One way to break a cluster. Injecting ends when the fault is in effect; healing works also on a
/// cluster that is whole, or that was repaired by somebody else since.
pub struct Fault {
    pub name: String,
    pub inject: Act,
    pub heal: Act,
}

impl Fault {
    pub fn new(
        name: impl Into<String>,
        inject: impl Fn(&Cluster) -> Result<()> + Send + Sync + 'static,
        heal: impl Fn(&Cluster) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), inject: Box::new(inject), heal: Box::new(heal) }
    }
}
