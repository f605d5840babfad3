//! One question before anything is changed.

use std::io::{self, IsTerminal, Write};

use super::args::Globals;
use super::output;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::i18n::{Locale, say};
use crate::model::{Plan, Text};
use crate::render::{self, prompt};

/// Shows the plan and asks whether to carry it out.
///
/// # Errors
/// As [`ask`].
pub async fn ask_plan(globals: &Globals, plan: &Plan) -> Result<(), ExpectedError> {
    output::note(|out| render::plan::write(&output::style_stderr(globals), plan, out));
    ask(globals.locale, prompt::fix()).await
}

/// Puts `question` on stderr and waits for a line on stdin. Everything but a clear yes is a no.
///
/// # Errors
/// Exit 5: declined, or nobody is there to ask (stdin or stderr is no terminal). Exit 130: Ctrl-C.
pub async fn ask(locale: Locale, question: Text) -> Result<(), ExpectedError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(ExpectedError::new(Exit::Unconfirmed, Text::new("error.consent.nobody"))
            .hint(Text::new("error.consent.yes_flag")));
    }
    output::note(|out| write!(out, "{} ", say(locale, &question)));
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = tokio::select! {
        answer = read => answer,
        _ = tokio::signal::ctrl_c() => {
            output::note(|out| writeln!(out));
            return Err(ExpectedError::interrupted());
        }
    };
    match answer {
        Ok(Ok(line)) if is_yes(&line) => Ok(()),
        _ => Err(ExpectedError::new(Exit::Unconfirmed, Text::new("error.consent.declined"))),
    }
}

/// 예, 네, y, yes, and what the `y` key types while the Korean input method is on.
pub fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "예" | "네" | "y" | "yes" | "ㅛ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["예\n", "네", " y \n", "Yes\r\n", "ㅛ\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "아니요", "yes please", "ㅜ", "예?"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
