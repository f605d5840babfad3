//! The API server answers, but late: it is stopped most of the time, as one is that waits for its disk.

use std::time::Duration;

use crate::cluster::{Cluster, Node};
use crate::faults::Fault;
use crate::faults::background::Background;

/// How long it does not run, and how long it runs between two such times.
const STOPPED: Duration = Duration::from_millis(2000);
const RUNNING: Duration = Duration::from_millis(150);

/// Most requests take about two seconds.
pub fn api_server(node: &Node) -> Fault {
    let pulse = Background::default();
    let ending = pulse.clone();
    let place = node.place.clone();
    Fault::new(
        "the API server is slow",
        move |_: &Cluster| {
            let place = place.clone();
            pulse.start(move || {
                let signal = |name: &str| {
                    // Its failing shows as a row whose requests are fast.
                    let _ = place.shell(&format!("kill -{name} $(pgrep -o -x kube-apiserver)"));
                };
                // The times are the fault itself, not waits for something.
                signal("STOP");
                std::thread::sleep(STOPPED);
                signal("CONT");
                std::thread::sleep(RUNNING);
            });
            Ok(())
        },
        move |_: &Cluster| {
            ending.end();
            Ok(())
        },
    )
}
