//! How text for people is dressed: its language, whether it is coloured, how much of it there is.

use anstyle::{AnsiColor, Color, Style as Ansi};

use crate::i18n::{Locale, say};
use crate::model::{Severity, Text};

/// Given to every renderer of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    pub locale: Locale,
    pub color: bool,
    /// `-o wide`: everything that is known, not only what matters most.
    pub wide: bool,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Error,
    Warning,
    Info,
    Good,
    /// A heading, or what leads a line.
    Strong,
    /// Behind a break; a remark.
    Faint,
}

impl Style {
    /// The sentence in this language.
    pub fn say(&self, text: &Text) -> String {
        say(self.locale, text)
    }

    /// The text in its colour, where colour is wanted.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let ansi = match paint {
            Paint::Error => bold(AnsiColor::Red),
            Paint::Warning => bold(AnsiColor::Yellow),
            Paint::Info => bold(AnsiColor::Cyan),
            Paint::Good => bold(AnsiColor::Green),
            Paint::Strong => Ansi::new().bold(),
            Paint::Faint => Ansi::new().dimmed(),
        };
        format!("{ansi}{text}{ansi:#}")
    }

    /// The colour of a finding.
    pub fn severity(severity: Severity) -> Paint {
        match severity {
            Severity::Error => Paint::Error,
            Severity::Warning => Paint::Warning,
            Severity::Info => Paint::Info,
        }
    }
}

fn bold(color: AnsiColor) -> Ansi {
    Ansi::new().bold().fg_color(Some(Color::Ansi(color)))
}
