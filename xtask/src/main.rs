//! Everything a developer runs: `cargo xtask demo | test | e2e | bench | cluster | node-image | codegen | new-check |
//! workflows | dist | krew`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool speaks to its terminal")]

mod bench;
mod cluster;
mod codegen;
mod demo;
mod dist;
mod e2e;
mod go_program;
mod hash;
mod image;
mod krew;
mod new_check;
mod node_image;
mod provider;
mod readme;
mod run;
mod suite;
mod test;
mod workflows;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the people who work on kubectl-bookaccess
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start, look at, enter and stop test clusters
    Cluster(cluster::Args),
    /// Run the live suite on a test cluster
    E2e(e2e::Args),
    /// Run everything that must hold before a change is merged
    Test(test::Args),
    /// Show the whole story on a fresh cluster: broken, diagnosed, fixed, undone
    Demo(demo::Args),
    /// Measure the forwarding engine beside what it replaces
    Bench(bench::Args),
    /// Build a node image for kind from packages and Go modules, where no image registry answers
    NodeImage(node_image::Args),
    /// Write the catalogue of checks anew, from the files that are there
    Codegen,
    /// Begin a check: its code, its texts and its fixture, to be filled in
    NewCheck {
        /// BA and four digits
        code: String,
        /// What it finds, in lower case with dashes
        slug: String,
    },
    /// Check the workflows of GitHub's CI with actionlint
    Workflows,
    /// Pack the archive of a release for one target, with its checksum
    Dist(dist::Args),
    /// Write the manifest for krew out of a release's archives
    Krew(krew::Args),
    /// Load a page with new connections at a steady rate (started by `demo`, `bench recovery` and the live suite)
    #[command(hide = true)]
    Load(demo::load::Args),
    /// The first process of a cluster member's namespaces (started by `cluster up`)
    #[command(hide = true, name = provider::native::MEMBER_COMMAND)]
    Member(provider::native::member::Args),
    /// The first process of a Docker daemon of our own (started by `--provider kind --install`)
    #[command(hide = true, name = provider::docker::daemon::COMMAND)]
    DockerDaemon(provider::docker::daemon::Args),
    /// The stand-in for EC2's instance metadata service (started by `cluster up --ec2`)
    #[command(hide = true)]
    Imds(provider::native::imds::Args),
}

fn main() -> ExitCode {
    if provider::docker::stand_in::is_meant(std::env::args_os().next()) {
        return provider::docker::stand_in::run();
    }
    let result = match Cli::parse().command {
        Command::Cluster(args) => cluster::run(args),
        Command::E2e(args) => e2e::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::NodeImage(args) => node_image::run(&args),
        Command::Codegen => codegen::run(&readme::top()).map(|()| ExitCode::SUCCESS),
        Command::NewCheck { code, slug } => new_check::run(&readme::top(), &code, &slug).map(|()| ExitCode::SUCCESS),
        Command::Workflows => workflows::run(),
        Command::Dist(args) => dist::run(&args),
        Command::Krew(args) => krew::run(&args),
        Command::Load(args) => demo::load::run(&args),
        Command::Member(args) => provider::native::member::run(&args),
        Command::DockerDaemon(args) => provider::docker::daemon::run(&args),
        Command::Imds(args) => provider::native::imds::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if run::interrupted() { 130 } else { 1 })
        }
    }
}
