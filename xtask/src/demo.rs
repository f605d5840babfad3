//! `cargo xtask demo`.
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {}

/// Not wired yet.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`cargo xtask demo` does not exist yet")
}
