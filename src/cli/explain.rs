//! The verb `explain`: the catalogue, offline.

use super::args::Globals;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::model::{Code, Text};

/// Prints one entry, or the list of codes.
///
/// # Errors
/// An unknown code.
pub fn run(_globals: &Globals, _code: Option<Code>) -> Result<Exit, ExpectedError> {
    Err(ExpectedError::new(Exit::Problem, Text::new("error.not_built")))
}
