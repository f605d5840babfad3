//! A panic is a bug of ours: one sentence for the person, the place for the report, no backtrace.

use std::io::Write;

use super::output;
use crate::i18n::{Locale, say};
use crate::model::Text;

/// Replaces the panic message from here on. `RUST_BACKTRACE` still brings the usual one back, for who asks for it.
pub fn speak(locale: Locale) {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
        return;
    }
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or_default().lines().next().unwrap_or_default();
        let text = Text::new("error.bug").with("place", place).with("message", message);
        output::note(|out| writeln!(out, "{} {}", say(locale, &Text::new("ui.level.error")), say(locale, &text)));
    }));
}
