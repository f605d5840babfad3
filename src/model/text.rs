//! A sentence for people, not yet in any language: a key of `locales/` and its arguments.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Rendered by `i18n` in the reader's language; everything before that passes it on as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub key: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<(Cow<'static, str>, String)>,
}

impl Text {
    /// A sentence without arguments yet.
    pub fn new(key: impl Into<Cow<'static, str>>) -> Self {
        Self { key: key.into(), args: Vec::new() }
    }

    /// With one more argument: `%{name}` in the locale file.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        self.args.push((name.into(), value.to_string()));
        self
    }
}
