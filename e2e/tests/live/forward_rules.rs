//! Rules of ours beside a firewall, beside kube-proxy's own traffic, and beside another forward's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::app::{self, Bookinfo, GRAFANA_NAMESPACE, NAMESPACE, PORT};
use e2e::condition::until;
use e2e::faults::{firewall, rules, service};
use e2e::page::{self, Seen};
use e2e::scenario::{Stage, scenario};
use e2e::way::{Open, Way};
use serde_json::json;

use crate::PAGE;

/// How soon another carrier takes over, or the first comes back.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// Packets that the kernel leads to pods pass FORWARD; kube-proxy accepts its own there, but not ours.
#[test]
fn f11_forward_drop_makes_another_carrier_take_over() {
    scenario("f11_forward_drop", |stage| {
        let node = stage.cluster.control_plane()?;
        Bookinfo::page().apply(&stage.cluster)?;
        let open = Open::begin(&stage.cluster, &stage.operator, Way::Kernel)?;
        stage.inject(firewall::forward_drops(node))?;
        // The NodePort may survive it: without it nothing but ours carries the page.
        stage.inject(rules::flushed_for_good_on(&node.place.name))?;
        until("another carrier", TAKE_OVER, || {
            stage.page(Duration::from_millis(1))?;
            let status = open.status()?;
            ensure!(status["kernel"]["carrying"] == false, "{status:#}");
            Ok(())
        })?;
        stage.heal()?;
        by_kernel(&open).context("after the firewall was opened again")?;
        stage.page(PAGE)?;
        open.end()
    });
}

/// ufw's INPUT hits a listener, but neither the NodePort nor the kernel's way to the pods.
#[test]
fn f12_input_drop_reaches_neither_the_kernel_nor_the_node_port() {
    scenario("f12_input_drop", |stage| {
        let node = stage.cluster.control_plane()?;
        Bookinfo::page().apply(&stage.cluster)?;
        for way in [Way::Kernel, Way::Standby] {
            let open = Open::begin(&stage.cluster, &stage.operator, way)?;
            stage.inject(firewall::input_drops(node))?;
            // Longer than a lease: what was found out later shows as well.
            let end = std::time::Instant::now() + Duration::from_secs(5);
            while std::time::Instant::now() < end {
                let seen = page::fetch(&stage.cluster.client, &stage.url(), Duration::from_secs(2))?;
                ensure!(seen.is_page(), "by way of {}: {}", way.name(), seen.brief());
            }
            stage.heal()?;
            open.end()?;
        }
        Ok(())
    });
}

/// With externalTrafficPolicy Local an application sees who dials it, by ours as by kube-proxy; ours changes nothing
/// of kube-proxy's own traffic.
#[test]
fn f13_the_client_address_is_kept_where_the_service_keeps_it() {
    scenario("f13_client_address", |stage| {
        let cluster = &stage.cluster;
        Bookinfo::page().apply(cluster)?;
        app::apply_grafana(cluster, false)?;
        let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
        cluster.merge(GRAFANA_NAMESPACE, "service/grafana", &local)?;

        let open = Open::begin(cluster, &stage.operator, Way::Kernel)?;
        // Without Local it is not kept, so that the answer finds its way back from another node.
        let seen = seen_by_pod(stage, &stage.url(), PORT)?;
        ensure!(seen != client(stage)?, "not masqueraded: {seen}");
        // kube-proxy takes its time to stop masquerading after the Service was changed.
        until("Grafana sees the client, which kube-proxy leads there beside us", PAGE, || {
            let seen = seen_by_pod(stage, &stage.grafana_url(), app::GRAFANA_PORT)?;
            ensure!(seen == client(stage)?, "masqueraded: {seen}");
            Ok(())
        })?;
        open.end()?;

        stage.inject(service::local_only())?;
        let open = Open::begin(cluster, &stage.operator, Way::Kernel)?;
        ensure!(seen_by_pod(stage, &stage.url(), PORT)? == client(stage)?, "the client's address is lost");
        open.end()
    });
}

#[test]
fn f14_two_forwards_do_not_touch_each_other() {
    scenario("f14_two_forwards", |stage| {
        let cluster = &stage.cluster;
        let worker = &cluster.worker(0)?.place.name;
        Bookinfo::page().on(worker).apply(cluster)?;
        app::apply_grafana(cluster, false)?;
        stage.inject(rules::flushed_for_good_on(&cluster.control_plane()?.place.name))?;
        let forward = |verb: &str, namespace: &str, name: &str| {
            let target = format!("svc/{name}");
            let front: &[&str] = if verb == "start" { &["--front"] } else { &[] };
            stage.operator.must(&[&["forward", verb, &target, "-n", namespace], front].concat(), 0)
        };
        let grafana = || {
            until("Grafana", PAGE, || {
                let seen = page::fetch(&cluster.client, &stage.grafana_url(), Duration::from_secs(2))?;
                ensure!(matches!(&seen, Seen::Answer { status: 200, body } if body.contains("database")), "{seen:?}");
                Ok(())
            })
        };
        forward("start", NAMESPACE, "productpage")?;
        forward("start", GRAFANA_NAMESPACE, "grafana")?;
        stage.page(PAGE)?;
        grafana()?;
        forward("stop", NAMESPACE, "productpage")?;
        stage.no_page(&[Seen::Refused])?;
        grafana().context("with the other forward stopped")?;
        forward("stop", GRAFANA_NAMESPACE, "grafana")?;
        let tables = stage.operator.place.shell("nft list tables")?;
        ensure!(!tables.contains("bookaccess"), "{tables}");
        Ok(())
    });
}

fn by_kernel(open: &Open) -> Result<()> {
    until("the kernel carries", TAKE_OVER, || {
        let status = open.status()?;
        ensure!(status["kernel"]["carrying"] == true, "{status:#}");
        Ok(())
    })
}

/// The client's own address, as it dials.
fn client(stage: &Stage) -> Result<String> {
    let route = stage.cluster.client.shell(&format!("ip -o route get {}", stage.cluster.public_address))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "src");
    words.nth(1).map(str::to_owned).with_context(|| route.clone())
}

/// Who dials, as the pod behind a port of the control plane sees it: whom the kernel expects the pod to answer.
fn seen_by_pod(stage: &Stage, url: &str, port: u16) -> Result<String> {
    let place = &stage.cluster.control_plane()?.place;
    place.shell("conntrack -F 2>/dev/null")?;
    let seen = page::fetch(&stage.cluster.client, url, Duration::from_secs(3))?;
    ensure!(matches!(seen, Seen::Answer { status: 200, .. }), "{url}: {}", seen.brief());
    let line = format!("conntrack -L -p tcp --orig-port-dst {port} 2>/dev/null | grep src={}", client(stage)?);
    let entries = place.shell(&line)?;
    let entry = entries.lines().next().context("no connection")?;
    // Two directions, each with its src= and dst=: the second dst= is where the answer goes.
    let mut answered_to = entry.split_whitespace().filter_map(|word| word.strip_prefix("dst=")).skip(1);
    answered_to.next().map(str::to_owned).with_context(|| entry.to_owned())
}
