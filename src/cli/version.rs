//! The verb `version`.

use std::io::Write;

use super::args::{Globals, Output};
use super::output;
use crate::error::ExpectedError;
use crate::exit::Exit;

/// Prints the version of this program; it asks no cluster.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(globals: &Globals) -> Result<Exit, ExpectedError> {
    let version = env!("CARGO_PKG_VERSION");
    output::result(|out| match globals.output {
        Output::Json => writeln!(out, "{{\"clientVersion\":\"v{version}\"}}"),
        Output::Yaml => writeln!(out, "clientVersion: v{version}"),
        Output::Text | Output::Wide => writeln!(out, "kubectl-bookaccess v{version}"),
    })?;
    Ok(Exit::Ok)
}
