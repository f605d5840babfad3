//! The verb `fix`.

use super::args::{FixArgs, Globals};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::model::Text;

/// Not wired yet.
///
/// # Errors
/// Always.
pub async fn run(_globals: Globals, _args: FixArgs) -> Result<Exit, ExpectedError> {
    Err(ExpectedError::new(Exit::Problem, Text::new("error.not_built")))
}
