//! What is measured beside each other: the NodePort itself, and forwarders that run on the node.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::process;
use super::site::{NAME, NODE_PORT, POD_PORT, Site};
use crate::run;

/// Until a forwarder answers; ours may wait for its first look at the cluster.
const START: Duration = Duration::from_secs(20);
/// Until it has ended after SIGTERM.
const END: Duration = Duration::from_secs(10);
/// nbthread of HAProxy: as many as this program may use of the machine.
const THREADS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// kube-proxy's own rules
    #[value(name = "nodeport")]
    NodePort,
    /// HAProxy, mode tcp with splice, to the pod's address
    Haproxy,
    /// kubectl port-forward of the cluster's version
    Kubectl,
    /// Ours, by rules of the kernel
    Kernel,
    /// Ours, to the pod's address
    Direct,
    /// Ours, through the API server
    Tunnel,
}

impl Kind {
    /// All of them, those that are compared next to each other.
    pub const ALL: [Self; 6] = [Self::NodePort, Self::Kernel, Self::Haproxy, Self::Direct, Self::Kubectl, Self::Tunnel];

    /// Whether kube-proxy's mode makes a difference to it.
    pub fn depends_on_mode(self) -> bool {
        matches!(self, Self::NodePort | Self::Kernel)
    }

    pub fn title(self, proxy_mode: &str) -> String {
        match self {
            Self::NodePort => format!("NodePort ({proxy_mode})"),
            Self::Kernel => format!("kernel ({proxy_mode})"),
            Self::Haproxy => "HAProxy".to_owned(),
            Self::Kubectl => "kubectl port-forward".to_owned(),
            Self::Direct => "direct".to_owned(),
            Self::Tunnel => "tunnel".to_owned(),
        }
    }

    /// The port the client dials. Each row has its own: nothing of a former one lingers on it.
    fn port(self) -> u16 {
        match self {
            Self::NodePort | Self::Kernel => NODE_PORT,
            Self::Haproxy => 18081,
            Self::Kubectl => 18082,
            Self::Direct => 18083,
            Self::Tunnel => 18084,
        }
    }

    /// Words that start it on the control plane; none where there is nothing to start.
    fn argv(self, site: &Site) -> Result<Option<Vec<String>>> {
        let port = self.port();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let ours = |flags: &[&str]| {
            let mut argv = words(&["env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]);
            argv.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
            argv.extend(words(&[&site.product, "forward", "svc/bench", "-n", NAME, &format!("{port}:http")]));
            // A rule needs an address of its own; the public one leads to the node's.
            let address = if self == Self::Kernel { site.node()?.address.as_str() } else { "0.0.0.0" };
            argv.extend(words(&["--address", address]));
            argv.extend(words(flags));
            argv.extend(site.unlimited.iter().cloned());
            Ok::<_, anyhow::Error>(argv)
        };
        Ok(Some(match self {
            Self::NodePort => return Ok(None),
            Self::Haproxy => {
                let file = "/run/haproxy-bench.cfg";
                let write = ["sh", "-ec", &format!("cat > {file}")];
                site.node()?
                    .place
                    .feed(&write, &haproxy(port, &site.pod_address), Duration::from_secs(5))?
                    .success()?;
                words(&["haproxy", "-db", "-q", "-f", file])
            }
            Self::Kubectl => {
                let kubectl = site.cluster.bin.join("kubectl").display().to_string();
                let pair = format!("{port}:{POD_PORT}");
                let mut argv =
                    words(&[&kubectl, "--kubeconfig=/etc/kubernetes/admin.conf", "port-forward", "-n", NAME]);
                argv.extend(words(&["svc/bench", &pair, "--address=0.0.0.0"]));
                argv
            }
            Self::Kernel => ours(&["--mode", "kernel", "--front"])?,
            Self::Direct => ours(&["--mode", "direct"])?,
            Self::Tunnel => ours(&["--mode", "tunnel"])?,
        }))
    }
}

/// How many connections a forwarder of two sockets each can hold with the descriptors a process may have here.
pub fn most_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    (limit.saturating_sub(200) / 2).min(10_000) as usize
}

/// How many can be held through the API server: behind it containerd has four descriptors for each that stands, and
/// more while they are opened.
pub fn most_port_forwards() -> usize {
    most_connections() * 2 / 5
}

/// As many pipes as transfers could use; its default is a quarter of maxconn, more descriptors than there may be.
fn haproxy(port: u16, pod: &str) -> String {
    format!(
        "global
  nbthread {THREADS}
  maxconn {most}
  maxpipes 64
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen bench
  bind :{port}
  server pod {pod}:{POD_PORT}
",
        most = most_connections()
    )
}

/// A row that is being measured.
pub struct Running {
    pub port: u16,
    /// The processes whose CPU time and memory are its own.
    pub processes: Vec<u32>,
    child: Option<Child>,
    log: PathBuf,
}

impl Running {
    /// Starts a row, and waits until the client has an answer through it.
    pub fn start(kind: Kind, site: &Site, folder: &std::path::Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", kind.port()));
        let mut running = Self { port: kind.port(), processes: Vec::new(), child: None, log };
        if let Some(argv) = kind.argv(site)? {
            let file = fs::File::create(&running.log)?;
            let mut command = run::command(&site.node()?.place.enter);
            command.args(&argv).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            running.child = Some(command.spawn().context("cannot start nsenter")?);
        }
        let port = running.port;
        run::wait_for("an answer", START, || {
            if let Err(ended) = running.alive() {
                return Ok(Err(ended));
            }
            if kind == Kind::Kernel {
                ensure!(site.leads_by_kernel()?, "no rule of ours leads to the pod");
            }
            site.load("requests", port, &["--seconds", "0.02"]).map(Ok)
        })
        .with_context(|| running.said())??;
        if let Some(child) = &running.child {
            running.processes = process::below(child.id());
            ensure!(!running.processes.is_empty(), "it has no process");
        }
        Ok(running)
    }

    /// Fails when it has ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            bail!("it ended: {status}\n{}", self.said());
        }
        Ok(())
    }

    /// The last lines it printed.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        process::below(child.id()).into_iter().for_each(|pid| process::signal(pid, Signal::TERM));
        let interrupted = run::forget_interrupt();
        let ended = run::wait_for("its end", END, || child.try_wait()?.context("still running").map(drop));
        if ended.is_err() {
            process::below(child.id()).into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
            let _ = child.kill();
            let _ = child.wait();
        }
        if interrupted {
            run::remember_interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_targets_is_one_that_is_measured() {
        let titles: Vec<_> =
            ["iptables", "nftables"].iter().flat_map(|mode| Kind::ALL.map(|kind| kind.title(mode))).collect();
        for target in super::super::targets::all() {
            assert!(titles.iter().any(|title| title == target.row), "{target:?}");
            assert!(titles.iter().any(|title| title == target.to), "{target:?}");
        }
    }
}
