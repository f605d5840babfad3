//! `cargo xtask bench`: figures of what it does, beside those of what people use without it.

mod diagnose;
mod figures;
mod forward;
mod machine;
mod plot;
mod process;
pub mod record;
mod recovery;
mod report;
mod rows;
mod site;
mod size;
mod stats;
mod targets;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput, rates, latency, CPU and memory: NodePort, HAProxy, kubectl port-forward, and each of our carriers
    Forward(forward::Args),
    /// What faults cost those who load the page meanwhile: NodePort, kubectl port-forward, and each of our carriers
    Recovery(recovery::Args),
    /// What `diagnose` says of the faults that break the page, beside popeye
    Diagnose(diagnose::Args),
    /// What `diagnose -A --from` costs on the largest cluster that Kubernetes is made for
    Size(size::Args),
}

/// Runs one of the benches.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Forward(args) => forward::run(args),
        Command::Recovery(args) => recovery::run(args),
        Command::Diagnose(args) => diagnose::run(args),
        Command::Size(args) => size::run(args),
    }
}
