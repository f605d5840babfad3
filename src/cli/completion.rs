//! The verb `completion`: a script for the shell.

use clap_complete::Shell;

use super::args::{Globals, tree};
use super::output;
use crate::error::ExpectedError;
use crate::exit::Exit;

/// Prints the script. It completes `kubectl-bookaccess`, the name of the file; what follows `kubectl bookaccess` is
/// completed where `kubectl_complete-bookaccess` lies on PATH.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(globals: &Globals, shell: Shell) -> Result<Exit, ExpectedError> {
    let mut command = tree::command(globals.locale, "kubectl-bookaccess".to_owned());
    output::result(|out| {
        clap_complete::generate(shell, &mut command, "kubectl-bookaccess", out);
        Ok(())
    })?;
    Ok(Exit::Ok)
}
