//! The faults that a way to the page is to survive, as a table: where the pods are, what happens, what it may cost.
//!
//! One mechanism for the live suite, which plays a chosen few, and for `cargo xtask bench recovery`, which plays all of
//! them on every way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::app::{Bookinfo, NAMESPACE};
use crate::cluster::Cluster;
use crate::condition::until;
use crate::faults::{Fault, daemon, kube_proxy, ours, rules, workload};
use crate::load::{Client, Count, Order};
use crate::plugin::Plugin;
use crate::way::{Open, Way};

/// New connections a second in the bench.
pub const RATE: u32 = 200;
/// What one request may take: longer than every wait that is to be survived, so that a late answer is told from none.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The lease of our rules, in milliseconds: a wedged process acts no longer.
pub const LEASE: u64 = 3_000;
/// A gap is measured between answers that come every 5 ms and take some of their own, in milliseconds.
const RESOLUTION: u64 = 50;

/// Where the page's pods are when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One pod, on the first worker.
    Single,
    /// So many, spread over the workers.
    Spread(u8),
}

impl Layout {
    /// Brings it about and waits until nothing of a former layout is left.
    pub fn apply(self, cluster: &Cluster) -> Result<()> {
        let (page, pods) = match self {
            Self::Single => (Bookinfo::page().on(&cluster.worker(0)?.place.name), 1),
            Self::Spread(pods) => (Bookinfo::page().spread(pods), usize::from(pods)),
        };
        page.apply(cluster)?;
        until("no former pod is left", Duration::from_secs(60), || {
            let all = cluster.get(&["-n", NAMESPACE, "pods", "-l", "app=productpage"])?;
            let count = all["items"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(count == pods, "{count} pods");
            Ok(())
        })
    }
}

/// What a fault may cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// No failed request.
    Nothing,
    /// A longest gap of so many milliseconds.
    Gap(u64),
}

impl Target {
    pub fn met(self, count: &Count) -> bool {
        match self {
            Self::Nothing => count.failed == 0,
            Self::Gap(limit) => count.gap <= limit + RESOLUTION,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("no failed request"),
            Self::Gap(limit) => write!(f, "no gap over {limit} ms"),
        }
    }
}

/// A fault of the table.
pub struct Trial {
    pub name: &'static str,
    /// What happens, for the table's reader.
    pub words: &'static str,
    pub layout: Layout,
    /// What is broken already when the way is opened.
    before: fn(&Cluster) -> Result<Option<Fault>>,
    fault: fn(&Cluster, &Arc<Open>) -> Result<Fault>,
    /// How long the load goes on once the fault is in effect or has passed.
    hold: Duration,
    /// What it may cost ours; none where no path of that way exists meanwhile.
    pub target: fn(Way) -> Option<Target>,
    /// Whether it happens to our own process only.
    pub ours: bool,
}

fn healthy(_: &Cluster) -> Result<Option<Fault>> {
    Ok(None)
}

/// Without kube-proxy's rules nothing but ours carries the page: they cannot step in for a moment unseen.
fn only_ours(cluster: &Cluster) -> Result<Option<Fault>> {
    Ok(Some(rules::flushed_for_good_on(dialled(cluster)?)))
}

fn dialled(cluster: &Cluster) -> Result<&str> {
    Ok(&cluster.control_plane()?.place.name)
}

fn away(cluster: &Cluster, _: &Arc<Open>) -> Result<Fault> {
    Ok(workload::moved_to(&cluster.worker(1)?.place.name))
}

const SECOND: Option<Target> = Some(Target::Gap(1_000));
const NOTHING: Option<Target> = Some(Target::Nothing);
const SHORT: Duration = Duration::from_secs(3);
/// Longer than a lease, so that what comes after it shows.
const LONG: Duration = Duration::from_secs(7);

/// All of them.
pub const TRIALS: [Trial; 12] = [
    Trial {
        name: "rollout",
        words: "rollout of 3 replicas",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |_, _| Ok(workload::rolled_out()),
        hold: SHORT,
        target: |_| NOTHING,
        ours: false,
    },
    Trial {
        name: "pod-killed",
        words: "one of 3 pods killed -9",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |_, _| Ok(workload::killed()),
        hold: SHORT,
        target: |_| SECOND,
        ours: false,
    },
    Trial {
        name: "moved",
        words: "single replica moved to another node",
        layout: Layout::Single,
        before: healthy,
        fault: away,
        hold: SHORT,
        target: |_| SECOND,
        ours: false,
    },
    Trial {
        name: "excluded-moved",
        words: "kube-proxy excluded from the node, then the pod moved",
        layout: Layout::Single,
        before: |cluster| Ok(Some(kube_proxy::excluded_from(dialled(cluster)?))),
        fault: away,
        hold: LONG,
        target: |_| SECOND,
        ours: false,
    },
    Trial {
        name: "rules-flushed",
        words: "kube-proxy's NodePort rules flushed",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |cluster, _| Ok(rules::flushed_on(dialled(cluster)?)),
        hold: LONG,
        target: |_| NOTHING,
        ours: false,
    },
    Trial {
        name: "kube-proxy-restarted",
        words: "kube-proxy restarted",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |cluster, _| Ok(kube_proxy::restarted_on(dialled(cluster)?)),
        hold: SHORT,
        target: |_| NOTHING,
        ours: false,
    },
    Trial {
        name: "api-server-restarted",
        words: "API server away for 20 s",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |cluster, _| Ok(daemon::api_server_restarts(cluster.control_plane()?)),
        hold: SHORT,
        // A tunnel goes through it.
        target: |way| if way == Way::Tunnel { None } else { NOTHING },
        ours: false,
    },
    Trial {
        name: "restarted",
        words: "our process restarted (`forward restart`), the NodePort broken",
        layout: Layout::Spread(3),
        before: only_ours,
        fault: |_, open| Ok(ours::restarted(open)),
        hold: SHORT,
        target: |_| NOTHING,
        ours: true,
    },
    Trial {
        name: "upgraded",
        words: "our process upgraded (another copy of it, `forward restart`), the NodePort broken",
        layout: Layout::Spread(3),
        before: only_ours,
        fault: |_, open| Ok(ours::upgraded(open)),
        hold: SHORT,
        target: |_| NOTHING,
        ours: true,
    },
    Trial {
        name: "killed",
        words: "our process killed -9 and started again",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |_, open| Ok(ours::killed_and_started(open)),
        hold: LONG,
        target: |_| SECOND,
        ours: true,
    },
    Trial {
        name: "wedged",
        words: "our process wedged (SIGSTOP)",
        layout: Layout::Spread(3),
        before: healthy,
        fault: |_, open| Ok(ours::wedged(open)),
        hold: LONG,
        target: |_| Some(Target::Gap(LEASE)),
        ours: true,
    },
    Trial {
        name: "kubelet-gone",
        words: "the kubelet of one of 2 pods' nodes stopped",
        layout: Layout::Spread(2),
        before: healthy,
        fault: |cluster, _| Ok(daemon::kubelet_gone(cluster.worker(0)?)),
        hold: SHORT,
        target: |_| SECOND,
        ours: false,
    },
];

impl Trial {
    pub fn of_name(name: &str) -> Option<&'static Self> {
        TRIALS.iter().find(|trial| trial.name == name)
    }

    /// Plays it: the load on the way while the fault comes, stays and goes. Everything is healed and closed after it.
    pub fn play(&self, scene: &Scene<'_>, way: Way) -> Result<Count> {
        let cluster = scene.cluster;
        self.layout.apply(cluster).context("the pods' places")?;
        forget_connections(cluster)?;
        let before = (self.before)(cluster)?;
        let counted = match &before {
            Some(fault) => (fault.inject)(cluster).and_then(|()| self.on(scene, way)),
            None => self.on(scene, way),
        };
        let healed = before.map_or(Ok(()), |fault| (fault.heal)(cluster));
        let counted = counted.with_context(|| format!("{} by way of {}", self.name, way.name()))?;
        healed.with_context(|| format!("healing what came before {}", self.name))?;
        Ok(counted)
    }

    fn on(&self, scene: &Scene<'_>, way: Way) -> Result<Count> {
        let open = Arc::new(Open::begin(scene.cluster, scene.operator, way)?);
        let fault = (self.fault)(scene.cluster, &open)?;
        let load = Client::start(&scene.cluster.client, scene.program, &scene.order(&open))?;
        let injected = (fault.inject)(scene.cluster).with_context(|| fault.name.clone());
        if injected.is_ok() {
            // Not a wait for a condition: the time for which the loss is counted.
            std::thread::sleep(self.hold);
        }
        let counted = load.end();
        // Where it happened only this tells, and it ends with the trial. Without it the fault is healed all the same.
        let lost = way.is_ours() && counted.as_ref().is_ok_and(|count| count.failed > 0);
        let log =
            if lost { open.operator.run(&["forward", "logs"]).map(|said| said.stdout) } else { Ok(String::new()) };
        let healed = (fault.heal)(scene.cluster).with_context(|| format!("cannot heal: {}", fault.name));
        drop(fault);
        injected?;
        let count = Count { log: log.unwrap_or_else(|error| format!("{error:#}")), ..counted? };
        healed?;
        Arc::into_inner(open).context("somebody holds the way open")?.end()?;
        Ok(count)
    }
}

/// The kernel keeps where a former trial's connections were led to, also for a new one from the same port.
fn forget_connections(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.nodes.iter().map(|node| &node.place);
    nodes.chain([&cluster.gateway, &cluster.client]).try_for_each(|place| {
        place.shell("conntrack -F 2>/dev/null").map(drop).with_context(|| format!("connections of {}", place.name))
    })
}

/// Where the trials are played.
pub struct Scene<'s> {
    pub cluster: &'s Cluster,
    pub operator: &'s Plugin,
    /// The program with the hidden command `load`, as the client sees it.
    pub program: &'s Path,
    /// New connections a second.
    pub rate: u32,
}

impl Scene<'_> {
    /// The load on an open way.
    pub fn order(&self, open: &Open) -> Order {
        Order {
            rate: self.rate,
            address: open.address,
            // A small answer that needs no other service.
            path: "/health".to_owned(),
            marker: "healthy".to_owned(),
            patience: PATIENCE,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_trial_has_a_name_of_its_own_and_ways_have_names_that_are_read_back() {
        for (at, trial) in TRIALS.iter().enumerate() {
            assert!(TRIALS[..at].iter().all(|other| other.name != trial.name), "{}", trial.name);
            assert_eq!(Trial::of_name(trial.name).unwrap().words, trial.words);
        }
        assert!(Way::ALL.into_iter().all(|way| Way::of_name(way.name()) == Some(way)));
        assert!(Trial::of_name("none").is_none() && Way::of_name("none").is_none());
    }

    #[test]
    fn a_target_is_met_or_missed() {
        let count = |failed, gap| Count { failed, gap, ..Count::default() };
        assert!(Target::Nothing.met(&count(0, 9_000)) && !Target::Nothing.met(&count(1, 5)));
        assert!(Target::Gap(1_000).met(&count(7, 1_020)) && !Target::Gap(1_000).met(&count(0, 1_100)));
    }
}
