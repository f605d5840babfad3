//! The frame of a scenario: a healthy cluster before, faults healed and what was started ended
//! after, whatever happened between.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::app;
use crate::cluster::{Cluster, is_k3s};
use crate::faults::{Fault, kube_proxy};
use crate::page::{self, Seen};
use crate::plugin::Plugin;

/// Set by hand to look at a failure: faults are not healed after it, but before the next scenario.
const LEAVE_BROKEN: &str = "BOOKACCESS_E2E_LEAVE_BROKEN";

/// The scenarios that can be played on a cluster without kube-proxy, by the beginnings of their names. In all others a
/// NodePort works at first or is repaired, or kube-proxy's own DaemonSet is what breaks.
pub const WITHOUT_KUBE_PROXY: [&str; 12] = [
    "f01_",
    "f02_",
    "f03_",
    "s00_",
    "s08_host_port_from_a_laptop",
    "s08_pod_security_leaves_a_local_forward",
    "s10_",
    "s11_",
    "s13_bad_input",
    "s13_consent_is_asked_for",
    "s13_a_port_in_use",
    "s13_without_a_place_for_the_journal",
];

/// The scenarios that break kube-proxy by its DaemonSet or bring it back by that, by the beginnings of their names.
const WITH_KUBE_PROXY_SET: [&str; 13] = [
    "s02_",
    "s03_",
    "s04_",
    "s08_host_port",
    "s08_kube_proxy",
    "s08_pod_security",
    "s10_",
    "s11_",
    "s12_shipped_role_for_the_system",
    "f04_",
    "f05_",
    "f11_",
    "f14_",
];

/// What no cluster of k3s can play, whichever its kube-proxy mode, with the reason.
const NOT_ON_K3S: [(&str, &str); 5] = [
    ("s05_", "flannel puts a route that was taken away back by itself"),
    ("s08_a_probe_pod", "flannel puts a route that was taken away back by itself"),
    ("s08_host_port", "what repairs it lies in the configuration of k3s (BA3016)"),
    ("s11_", "what repairs it lies in the configuration of k3s (BA3016)"),
    ("s13_a_port_in_use", "its kubelet is a part of k3s"),
];

/// Why a scenario is left out on a cluster of this provider and this kube-proxy mode; None where it is played.
pub fn left_out(scenario: &str, provider: &str, proxy_mode: &str) -> Option<&'static str> {
    let own = scenario.rsplit("::").next().unwrap_or(scenario);
    let is_among = |begins: &[&str]| begins.iter().any(|begin| own.starts_with(begin));
    if proxy_mode == "none" && !is_among(&WITHOUT_KUBE_PROXY) {
        return Some("it needs a kube-proxy");
    }
    if !is_k3s(provider) {
        return None;
    }
    if proxy_mode != "none" && is_among(&WITH_KUBE_PROXY_SET) {
        return Some("it needs kube-proxy's DaemonSet, and k3s has kube-proxy in its own process");
    }
    NOT_ON_K3S.iter().find(|(begin, _)| own.starts_with(begin)).map(|(_, why)| *why)
}

/// What a scenario acts on.
pub struct Stage {
    pub cluster: Cluster,
    /// The operator's shell on the control plane.
    pub operator: Plugin,
    /// The developer's laptop.
    pub laptop: Plugin,
    injected: Mutex<Vec<Fault>>,
}

impl Stage {
    /// The stage on the cluster that the environment names, as it is now.
    fn open() -> Result<Self> {
        let cluster = Cluster::from_env()?;
        let operator = Plugin::on_control_plane(&cluster)?;
        let laptop = Plugin::on_client(&cluster)?;
        Ok(Self { cluster, operator, laptop, injected: Mutex::default() })
    }

    /// Takes up a cluster that was made anew meanwhile. What was injected into the former is gone with it.
    pub fn reopen(&mut self) -> Result<()> {
        *self = Self::open()?;
        Ok(())
    }

    /// The page as the browser dials it.
    pub fn url(&self) -> String {
        format!("http://{}:{}/productpage", self.cluster.public_address, app::PORT)
    }

    pub fn grafana_url(&self) -> String {
        format!("http://{}:{}/api/health", self.cluster.public_address, app::GRAFANA_PORT)
    }

    /// Injects a fault; it is healed when the scenario ends.
    pub fn inject(&self, fault: Fault) -> Result<()> {
        let name = fault.name.clone();
        // Kept first: an injection that fails half-way is healed as well.
        let mut injected = self.injected.lock().map_err(|_| anyhow!("poisoned"))?;
        injected.push(fault);
        let fault = injected.last().context("just pushed")?;
        (fault.inject)(&self.cluster).with_context(|| format!("cannot inject: {name}"))
    }

    /// Heals what is injected, the last first; every one is tried.
    pub fn heal(&self) -> Result<()> {
        let mut injected = self.injected.lock().map_err(|_| anyhow!("poisoned"))?;
        let mut result = Ok(());
        while let Some(fault) = injected.pop() {
            let healed = (fault.heal)(&self.cluster).with_context(|| format!("cannot heal: {}", fault.name));
            result = result.and(healed);
        }
        result
    }

    /// The client sees the page within this time.
    pub fn page(&self, limit: Duration) -> Result<String> {
        page::expect_page(&self.cluster.client, &self.url(), limit)
    }

    /// The client sees the page fail, in one of these ways.
    pub fn no_page(&self, ways: &[Seen]) -> Result<()> {
        page::expect_failure(&self.cluster.client, &self.url(), ways, Duration::from_secs(30)).map(drop)
    }

    /// Nothing of a former scenario is left, and what the cluster itself brings works.
    fn make_healthy(&self) -> Result<()> {
        self.operator.clear().context("ending what runs on the control plane")?;
        self.laptop.clear().context("ending what runs on the laptop")?;
        app::remove(&self.cluster).context("removing the applications")?;
        kube_proxy::restore(&self.cluster).context("restoring kube-proxy")?;
        // kube-proxy has taken the former Service's rules away on every node: no stale ones lead a packet astray.
        for node in &self.cluster.nodes {
            let url = format!("http://{}:{}/", node.address, app::PORT);
            page::expect_failure(&self.cluster.gateway, &url, &[Seen::Refused], Duration::from_secs(30))
                .context("with no application applied")?;
        }
        self.no_page(&[Seen::Refused]).context("with no application applied")
    }
}

/// Runs a scenario on the cluster that the environment names, and panics with its failure.
pub fn scenario(name: &str, play: impl FnOnce(&mut Stage) -> Result<()>) {
    let start = Instant::now();
    let result = Stage::open().and_then(|mut stage| {
        stage.make_healthy().context("making the cluster healthy")?;
        let ready = start.elapsed();
        let played = catch_unwind(AssertUnwindSafe(|| play(&mut stage)))
            .unwrap_or_else(|panic| Err(anyhow!("panic: {}", words(&*panic))));
        let played = played.map_err(|e| anyhow!("{e:#}\n\n{}", app::pods(&stage.cluster, app::NAMESPACE)));
        if played.is_err() && std::env::var_os(LEAVE_BROKEN).is_some() {
            return played;
        }
        let healed = stage.heal();
        tell(&format!("{name}: made healthy in {ready:.1?}, played until {:.1?}", start.elapsed()));
        // What went wrong in the play comes first; healing may fail because of it.
        played.and(healed)
    });
    if let Err(e) = result {
        panic!("{name}: {e:#}");
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown").to_owned()
}

/// The suite's own report, beside the harness' own lines.
#[expect(clippy::print_stderr, reason = "a test has no other place for it")]
fn tell(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::left_out;

    #[test]
    fn what_needs_a_kube_proxy_is_left_out_where_there_is_none() {
        assert!(
            left_out("story::s01_cluster_ip", "kind", "none").is_some()
                && left_out("story::s01_cluster_ip", "kind", "iptables").is_none()
        );
        assert!(left_out("defaults::s10_default_targets", "kind", "none").is_none());
    }

    #[test]
    fn what_needs_a_daemon_set_is_left_out_on_k3s_while_its_kube_proxy_runs() {
        let why = |scenario, mode| left_out(scenario, "k3d", mode).unwrap_or_default();
        assert_eq!(why("story::s01_cluster_ip_and_the_page_on_a_worker", "iptables"), "");
        assert!(why("kube_proxy::s02_kube_proxy_scheduled_nowhere", "nftables").contains("DaemonSet"));
        assert!(why("defaults::s10_default_targets", "iptables").contains("DaemonSet"));
        assert!(why("laptop::s08_a_probe_pod_sees_the_lost_route", "iptables").contains("flannel"));
        assert_eq!(why("defaults::s10_default_targets", "none"), "");
        assert_eq!(why("kube_proxy::s02_kube_proxy_scheduled_nowhere", "none"), "it needs a kube-proxy");
        for mode in ["iptables", "none"] {
            assert!(why("bad_input::s13_a_port_in_use_is_named_with_its_holder", mode).contains("kubelet"));
        }
    }
}
