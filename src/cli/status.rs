//! The verb `status`.

use super::args::{Globals, StatusArgs};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::model::Text;

/// Not wired yet.
///
/// # Errors
/// Always.
pub async fn run(_globals: Globals, _args: StatusArgs) -> Result<Exit, ExpectedError> {
    Err(ExpectedError::new(Exit::Problem, Text::new("error.not_built")))
}
