//! `cargo xtask node-image`: a node image for kind where no registry answers.

use std::process::ExitCode;

use anyhow::Result;

use crate::provider::kind::image;
use crate::run;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value = image::VERSION)]
    kubernetes_version: String,
    /// Refuse with a list where Debian packages are missing, instead of installing them
    #[arg(long)]
    no_install: bool,
}

/// Builds the image if it is not there, and says how to use it.
pub fn run(args: &Args) -> Result<ExitCode> {
    run::catch_interrupts()?;
    let image = image::ensure(&args.kubernetes_version, !args.no_install)?;
    println!("node image {}", image.name);
    println!("  docker load -i {}", image.archive.display());
    println!("  kind create cluster --image {}", image.name);
    Ok(ExitCode::SUCCESS)
}
