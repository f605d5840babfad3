//! The error a person sees: one clear sentence, hints, an exit code.

pub mod forbidden;
mod from;

use std::ffi::OsString;
use std::path::Path;

use crate::exit::Exit;
use crate::model::Text;
use crate::observe::client;

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

    fn usage(text: Text) -> Self {
        Self::new(Exit::Usage, text)
    }

    fn nearest(self, name: Option<String>) -> Self {
        match name {
            Some(name) => self.hint(Text::new("error.hint.nearest").with("name", name)),
            None => self,
        }
    }

    /// This part of the work needs root on the node; the hint is the same command with sudo.
    pub fn not_root(what: Text) -> Self {
        Self::new(Exit::Forbidden, what).hint(sudo_hint())
    }

    /// The API server did not answer.
    pub fn unreachable(server: &str, message: &str) -> Self {
        let text = Text::new("error.unreachable").with("server", server).with("message", message);
        let refused = Self::new(Exit::Unreachable, text);
        // A certificate is judged by the clock of this machine.
        let dated = ["expired", "not valid yet"].iter().any(|words| message.to_ascii_lowercase().contains(words));
        if message.contains("certificate") {
            let refused = if dated { refused.hint(Text::new("error.hint.clock")) } else { refused };
            refused.hint(Text::new("error.hint.rebuilt"))
        } else {
            refused.hint(Text::new("error.hint.server"))
        }
    }

    /// The API server does not take the credentials (401). `ended`: when they ended, where that is known.
    pub fn unauthorized(server: &str, ended: Option<jiff::Timestamp>) -> Self {
        let text = match ended {
            Some(end) => Text::new("error.unauthorized_since").with("server", server).with("end", end),
            None => Text::new("error.unauthorized").with("server", server),
        };
        Self::new(Exit::Forbidden, text).hint(Text::new("error.hint.credentials"))
    }

    /// An answer of the API server that is no success, or none at all.
    pub fn of_kube(server: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::unauthorized(server, None),
            kube::Error::Api(status) if status.code == 403 => forbidden::of_message(&status.message),
            kube::Error::Api(status) => Self::new(
                Exit::Problem,
                Text::new("error.api").with("code", status.code).with("message", &status.message),
            ),
            other => Self::unreachable(server, &client::innermost(other)),
        }
    }

    /// The state folder cannot be written: no journal, no background forward.
    pub fn state_not_writable(path: &Path, message: &str) -> Self {
        let text = Text::new("error.state_folder").with("path", path.display()).with("message", message);
        Self::new(Exit::Usage, text).hint(Text::new("error.hint.state_folder"))
    }

    /// Another process listens there. `by`: its name, where that could be seen.
    pub fn port_in_use(address: std::net::SocketAddr, by: Option<&str>) -> Self {
        let text = match by {
            Some(by) => Text::new("error.port_in_use_by").with("address", address).with("process", by),
            None => Text::new("error.port_in_use").with("address", address),
        };
        let refused = Self::new(Exit::Problem, text);
        let port = address.port();
        if by.is_none() {
            return refused.hint(Text::new("error.hint.who_listens").with("port", port));
        }
        refused.hint(Text::new("error.hint.other_port"))
    }

    /// Another `fix` holds the Lease of this target.
    pub fn fix_in_progress(target: &str, holder: &str) -> Self {
        let text = Text::new("error.fix_in_progress").with("target", target).with("holder", holder);
        Self::new(Exit::Problem, text)
    }

    /// Ctrl-C.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, Text::new("error.interrupted"))
    }
}

/// The command that was typed, as root. `sudo` replaces PATH by its `secure_path`, where neither kubectl nor the
/// plugin may lie, hence `env`.
fn sudo_hint() -> Text {
    Text::new("error.hint.sudo").with("command", sudo_line(&std::env::args_os().collect::<Vec<_>>()))
}

fn sudo_line(args: &[OsString]) -> String {
    let mut words = vec!["sudo env \"PATH=$PATH\"".to_owned(), crate::cli::args::tree::bin_name(args)];
    words.extend(args.iter().skip(1).map(|a| quoted(&a.to_string_lossy())));
    words.join(" ")
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
