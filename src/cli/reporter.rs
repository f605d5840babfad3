//! Progress on stderr, as it happens.

use std::io::Write;

use super::args::Globals;
use super::output;
use crate::render::{Event, Level, Style};

/// Says events. Beside a document for programs only what is wrong is said.
#[derive(Debug, Clone, Copy)]
pub struct Reporter {
    style: Style,
    least: Level,
}

impl Reporter {
    /// In the language and colours that were asked for.
    pub fn new(globals: &Globals) -> Self {
        let least = if globals.output.is_structured() { Level::Warning } else { Level::Info };
        Self { style: output::style_stderr(globals), least }
    }

    /// Says one event.
    pub fn say(&self, event: &Event) {
        if event.level() >= self.least {
            output::note(|out| event.lines(&self.style).iter().try_for_each(|line| writeln!(out, "{line}")));
        }
    }
}
