//! The fault matrix: every fault on a real cluster, named, brought back, undone.
//!
//! Run by `cargo xtask e2e --suite faults`, which names the cluster, the binary and the file of results in the
//! environment. The rows are data; a test is made of each.

mod control_plane;
mod edge;
mod harmless;
mod kube_proxy;
mod node;
mod pairs;
mod policy;
mod service;
mod without_kube_proxy;
mod workload;

use std::process::ExitCode;

use e2e::cluster::Cluster;
use e2e::matrix::{QUICK, Row, Shape, play};
use e2e::scenario::scenario;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let cluster = match Cluster::from_env() {
        Ok(cluster) => cluster,
        Err(error) => return fail(&format!("{error:#}")),
    };
    let quick = std::env::var_os(QUICK).is_some();
    let lines = [
        service::rows(),
        workload::rows(),
        kube_proxy::rows(),
        node::rows(),
        edge::rows(),
        control_plane::rows(),
        policy::rows(),
        harmless::rows(),
        pairs::rows(),
        without_kube_proxy::rows(),
    ];
    let rows = lines.into_iter().flatten();
    let mode = cluster.proxy_mode.as_str();
    let shape = Shape::of(&cluster);
    let wanted = rows.filter(|row| row.shape == shape && row.modes.contains(&mode) && (row.quick || !quick));
    let trials = wanted.map(|row| {
        let name = name(&row);
        Trial::test(name.clone(), move || {
            scenario(&name, |stage| play(stage, &row));
            Ok(())
        })
    });
    // The rows share one cluster.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// `line_the_name_in_words`, as tests are called.
fn name(row: &Row) -> String {
    let words = format!("{} {}", row.line, row.name).to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

#[expect(clippy::print_stderr, reason = "there is no test yet whose failure could tell")]
fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
