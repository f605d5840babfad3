//! The verb `forward`.

use super::args::Globals;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::ForwardArgs;
use crate::model::Text;

/// Not wired yet.
///
/// # Errors
/// Always.
pub async fn run(_globals: Globals, _args: ForwardArgs) -> Result<Exit, ExpectedError> {
    Err(ExpectedError::new(Exit::Problem, Text::new("error.not_built")))
}

/// The background process. Not wired yet.
///
/// # Errors
/// Always.
pub async fn daemon(_record: std::path::PathBuf) -> Result<Exit, ExpectedError> {
    Err(ExpectedError::new(Exit::Problem, Text::new("error.not_built")))
}
