//! Scenario 5: the path between the control plane and a worker is broken.

use anyhow::ensure;
use e2e::app::Bookinfo;
use e2e::faults::route;
use e2e::objects::Objects;
use e2e::page::Seen;
use e2e::scenario::scenario;

use crate::{PAGE, fix, node_port_works, page_pod, undo};

#[test]
fn s05_route_between_nodes_gone() {
    scenario("s05_route_between_nodes_gone", |stage| {
        let (control_plane, worker) = (stage.cluster.control_plane()?, stage.cluster.worker(0)?);
        Bookinfo::page().on(&worker.place.name).apply(&stage.cluster)?;
        stage.page(PAGE)?;
        stage.inject(route::gone(control_plane, worker))?;
        let broken = [Seen::NoRoute, Seen::Refused, Seen::Timeout];
        stage.no_page(&broken)?;
        let before = Objects::read(&stage.cluster)?;
        stage.operator.diagnose(&[], 1)?.leads("BA5011")?;
        fix(stage, &stage.operator, &[])?;
        node_port_works(stage, &stage.operator)?;
        let pod = page_pod(stage)?;
        let node = &pod["spec"]["nodeName"];
        ensure!(node == control_plane.place.name.as_str(), "the page runs on {node}");
        undo(stage, &stage.operator, &before)?;
        stage.no_page(&broken)
    });
}
