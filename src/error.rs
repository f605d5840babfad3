//! The error a person sees: one clear sentence, hints, an exit code.

use crate::exit::Exit;
use crate::model::Text;

/// Carried to `main`, rendered there in the reader's language.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", text.key)]
pub struct ExpectedError {
    pub exit: Exit,
    /// What is wrong, where, and what would be right.
    pub text: Text,
    /// Further lines: a command to run, a Role that grants a right.
    pub hints: Vec<Text>,
}

impl ExpectedError {
    /// An error without hints yet. The key lies under `error.`.
    pub fn new(exit: Exit, text: Text) -> Self {
        Self { exit, text, hints: Vec::new() }
    }

    /// With one more hint.
    #[must_use]
    pub fn hint(mut self, hint: Text) -> Self {
        self.hints.push(hint);
        self
    }
}
