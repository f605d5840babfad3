//! The dual-stack suite: what an outside client reaches by IPv6, on a cluster whose nodes, pods and Services have both
//! families.
//!
//! Run by `cargo xtask e2e --suite dual-stack`, which makes such a cluster and names it, the binary and itself in the
//! environment. The scenarios share one cluster, so they run one after another.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::{Bookinfo, PORT};
use e2e::condition::until;
use e2e::faults::{firewall, kube_proxy};
use e2e::objects::Objects;
use e2e::page::{self, Seen};
use e2e::scenario::{Stage, scenario};
use e2e::way::{Open, Way};

/// How soon the page must be there.
const PAGE: Duration = Duration::from_secs(3);
/// kube-proxy writes the rules of a new Service one family after the other.
const RULES: Duration = Duration::from_secs(15);
/// The carriers that can stand in front of the NodePort.
const CARRIERS: [Way; 3] = [Way::Tunnel, Way::Direct, Way::Kernel];

#[test]
fn d01_the_page_opens_by_both_families() {
    scenario("d01_both_families", |stage| {
        ensure!(stage.cluster.dual_stack, "the cluster has one family only");
        Bookinfo::page().by_both_families().spread(2).apply(&stage.cluster)?;
        for node in &stage.cluster.nodes {
            let own = node.address_v6.as_deref().context("a node without IPv6 address")?;
            page::expect_page(&stage.cluster.gateway, &url(own.parse()?), RULES)?;
        }
        page_by_ipv6(stage, RULES)?;
        stage.page(PAGE).map(drop)
    });
}

#[test]
fn d02_a_healthy_cluster_is_silent_at_its_ipv6_address() {
    scenario("d02_healthy", |stage| {
        Bookinfo::page().by_both_families().on(&stage.cluster.worker(0)?.place.name).apply(&stage.cluster)?;
        page_by_ipv6(stage, RULES)?;
        let address = public(stage)?.to_string();
        for by in [&stage.operator, &stage.laptop] {
            for words in [&["--address", &address][..], &[]] {
                let seen = by.diagnose(words, 0)?;
                ensure!(seen.findings().is_empty(), "{} {words:?}: {:#}", by.place.name, seen.0["findings"]);
            }
        }
        Ok(())
    });
}

/// What works by IPv4 says nothing of IPv6.
#[test]
fn d03_what_is_broken_for_ipv6_alone_is_found_at_its_address_alone() {
    scenario("d03_one_family_broken", |stage| {
        Bookinfo::page().by_both_families().apply(&stage.cluster)?;
        page_by_ipv6(stage, RULES)?;
        stage.inject(firewall::node_port_dropped_v6(stage.cluster.control_plane()?))?;
        page::expect_failure(&stage.cluster.client, &public_url(stage)?, &[Seen::Timeout], RULES)?;
        stage.page(PAGE)?;
        stage.operator.diagnose(&["--address", &public(stage)?.to_string()], 1)?;
        stage.operator.diagnose(&[], 0).map(drop)
    });
}

#[test]
fn d04_each_carrier_serves_an_ipv6_address_of_the_node() {
    scenario("d04_carriers", |stage| {
        Bookinfo::page().by_both_families().spread(2).apply(&stage.cluster)?;
        page_by_ipv6(stage, RULES)?;
        carriers_serve(stage)
    });
}

/// Without kube-proxy no rule but ours leads the NodePort anywhere.
#[test]
fn d05_each_carrier_serves_an_ipv6_address_without_kube_proxy() {
    scenario("d05_carriers_alone", |stage| {
        stage.inject(kube_proxy::unscheduled())?;
        Bookinfo::page().by_both_families().spread(2).apply(&stage.cluster)?;
        no_page_by_ipv6(stage)?;
        carriers_serve(stage)?;
        no_page_by_ipv6(stage).context("with the fallback stopped")
    });
}

#[test]
fn d06_fix_brings_the_page_back_at_the_ipv6_address() {
    scenario("d06_fix", |stage| {
        stage.inject(kube_proxy::unscheduled())?;
        Bookinfo::page().by_both_families().on(&stage.cluster.worker(0)?.place.name).apply(&stage.cluster)?;
        no_page_by_ipv6(stage)?;
        let (before, address) = (Objects::read(&stage.cluster)?, public(stage)?.to_string());
        let at = ["--address", &address];
        stage.operator.diagnose(&at, 1)?.leads("BA3002")?;
        let ended = stage.operator.must(&[&["fix", "--yes"][..], &at].concat(), 0)?;
        page_by_ipv6(stage, PAGE).with_context(|| format!("after fix\n{}\n{}", ended.stdout, ended.stderr))?;
        stage.operator.must(&["fix", "--undo", "--yes"], 0)?;
        no_page_by_ipv6(stage).context("after --undo")?;
        before.must_equal(&Objects::read(&stage.cluster)?)
    });
}

/// Each carrier, on the node's own address and on all of IPv6.
fn carriers_serve(stage: &Stage) -> Result<()> {
    let own = stage.cluster.control_plane()?.address_v6.clone().context("a node without IPv6 address")?;
    for way in CARRIERS {
        for address in [own.as_str(), "::"] {
            let name = format!("{} on {address}", way.name());
            let open = Open::at(&stage.cluster, &stage.operator, way, address, public(stage)?).context(name.clone())?;
            page_by_ipv6(stage, PAGE).context(name.clone())?;
            carried(&open).context(name)?;
            open.end()?;
        }
    }
    Ok(())
}

/// The page that was shown came by this carrier: the kernel leads packets, the others count connections.
fn carried(open: &Open) -> Result<()> {
    until("the carrier is told", PAGE, || {
        let status = open.status()?;
        let told = match open.way {
            Way::Kernel => status["kernel"]["carrying"] == true && status["total"] == 0,
            way => status[way.name()].as_u64().is_some_and(|count| count > 0),
        };
        ensure!(told, "{status:#}");
        Ok(())
    })
}

fn public(stage: &Stage) -> Result<IpAddr> {
    let address = stage.cluster.public_address_v6.as_deref().context("the cluster has no IPv6 address")?;
    Ok(address.parse()?)
}

fn url(address: IpAddr) -> String {
    format!("http://{}/productpage", std::net::SocketAddr::new(address, PORT))
}

fn public_url(stage: &Stage) -> Result<String> {
    public(stage).map(url)
}

fn page_by_ipv6(stage: &Stage, limit: Duration) -> Result<()> {
    page::expect_page(&stage.cluster.client, &public_url(stage)?, limit).map(drop)
}

fn no_page_by_ipv6(stage: &Stage) -> Result<()> {
    page::expect_failure(&stage.cluster.client, &public_url(stage)?, &[Seen::Refused], RULES).map(drop)
}
