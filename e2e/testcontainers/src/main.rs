//! Starts one node of k3s by testcontainers, says `ready` once it answers, and ends it when standard input closes or a
//! signal comes. `cargo xtask e2e --provider testcontainers` starts it and says how k3s is to be.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use testcontainers_modules::k3s::K3s;
use testcontainers_modules::testcontainers::ImageExt;
use testcontainers_modules::testcontainers::core::Mount;
use testcontainers_modules::testcontainers::runners::SyncRunner;

/// How long k3s may take to start, its image being there.
const STARTING: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Args {
    /// k3s' image, with its tag
    #[arg(long, value_parser = image)]
    image: (String, String),
    /// Of the container, and of the node
    #[arg(long)]
    name: String,
    /// A network of Docker's that is there
    #[arg(long)]
    network: String,
    /// KEY=VALUE; may be repeated
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// A folder of this machine that the node sees at the same place
    #[arg(long)]
    folder: PathBuf,
    /// What k3s is told
    #[arg(last = true)]
    command: Vec<String>,
}

fn image(text: &str) -> Result<(String, String)> {
    let (name, tag) = text.rsplit_once(':').context("an image with its tag, as in rancher/k3s:v1.35.5-k3s1")?;
    Ok((name.to_owned(), tag.to_owned()))
}

fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').context("KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = args.folder.to_str().context("a folder whose name is not UTF-8")?;
    let node = K3s::default()
        .with_name(args.image.0)
        .with_tag(args.image.1)
        .with_cmd(args.command)
        .with_container_name(&args.name)
        .with_hostname(&args.name)
        .with_network(&args.network)
        .with_labels(args.label)
        .with_mount(Mount::bind_mount(folder, folder))
        .with_privileged(true)
        .with_userns_mode("host")
        .with_startup_timeout(STARTING)
        .start()?;
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    node.rm()?;
    Ok(())
}
