//! The hidden command that loads a page from inside the client's network namespace; `e2e::load` is what it does.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use e2e::load::{self, Order};

#[derive(clap::Args)]
pub struct Args {
    /// New connections a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// What one request may take, in milliseconds
    #[arg(long, default_value_t = 3000)]
    patience_ms: u64,
    /// The address dialled
    address: SocketAddr,
    /// The path asked for
    #[arg(default_value = "/productpage")]
    path: String,
    /// What the right answer holds
    #[arg(long, default_value = e2e::page::TITLE)]
    marker: String,
}

/// Loads until standard input ends.
pub fn run(args: &Args) -> Result<ExitCode> {
    let order = Order {
        rate: args.rate,
        address: args.address,
        path: args.path.clone(),
        marker: args.marker.clone(),
        patience: Duration::from_millis(args.patience_ms),
    };
    load::serve(&order)?;
    Ok(ExitCode::SUCCESS)
}
