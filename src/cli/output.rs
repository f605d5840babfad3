//! Results to stdout, everything else to stderr. Who closes the pipe early has read enough: that is no error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::args::{Color, Globals, Output};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::i18n::{Locale, say};
use crate::model::Text;
use crate::render::Style;
use crate::render::json::Document;
use crate::render::width::{WIDTH, wrap};

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Reads,
    /// It closed the pipe: it has read enough. Who writes again and again stops here.
    Gone,
}

/// Writes a result to stdout, whole or not at all.
///
/// # Errors
/// Where stdout cannot be written (a full disk); a closed pipe is none.
pub fn result(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Reader, ExpectedError> {
    let mut bytes = Vec::new();
    let mut out = io::stdout().lock();
    match write(&mut bytes).and_then(|()| out.write_all(&bytes)).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(ExpectedError::new(Exit::Problem, Text::new("error.stdout").with("message", error))),
    }
}

/// Writes to stderr. Where even that fails there is nobody left to tell.
pub fn note(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
    let mut bytes = Vec::new();
    if write(&mut bytes).is_ok() {
        let _ = io::stderr().lock().write_all(&bytes);
    }
}

/// `[오류] …` and its hints, on stderr.
pub fn complain(locale: Locale, error: &ExpectedError) {
    note(|out| out.write_all(complaint(locale, error).as_bytes()));
}

/// The lines of [`complain`].
pub fn complaint(locale: Locale, error: &ExpectedError) -> String {
    let mark = format!("{} ", say(locale, &Text::new("ui.level.error")));
    let mut lines = wrap(&mark, &say(locale, &error.text), WIDTH).join("\n") + "\n";
    // A hint may be a command or a manifest, which are copied: never broken.
    for hint in &error.hints {
        for line in say(locale, hint).trim_end().lines() {
            lines.push_str(&format!("  {line}\n"));
        }
    }
    lines
}

/// How a result is dressed.
pub fn style_stdout(globals: &Globals) -> Style {
    let wide = globals.output == Output::Wide;
    Style { locale: globals.locale, color: colors_stdout(globals.color), wide }
}

/// How progress is dressed.
pub fn style_stderr(globals: &Globals) -> Style {
    Style { locale: globals.locale, color: colors_stderr(globals.color), wide: false }
}

/// Writes a document or, where text is wanted, the text.
///
/// # Errors
/// As [`result`].
pub fn document(
    globals: &Globals,
    document: &Document<'_>,
    text: impl FnOnce(&Style, &mut Vec<u8>) -> io::Result<()>,
) -> Result<Reader, ExpectedError> {
    result(|out| match globals.output {
        Output::Json => document.write_json(out),
        Output::Yaml => document.write_yaml(out),
        Output::Text | Output::Wide => text(&style_stdout(globals), out),
    })
}

/// Whether stdout is to be coloured.
pub fn colors_stdout(color: Color) -> bool {
    colors(color, io::stdout().is_terminal())
}

/// Whether stderr is to be coloured.
pub fn colors_stderr(color: Color) -> bool {
    colors(color, io::stderr().is_terminal())
}

fn colors(color: Color, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !set("NO_COLOR") && !dumb,
    }
}

/// The machine gives no threads.
pub fn no_runtime(error: io::Error) -> ExpectedError {
    ExpectedError::new(Exit::Problem, Text::new("error.no_runtime").with("message", error))
}
