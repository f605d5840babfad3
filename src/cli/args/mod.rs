//! What the command line asks for, as plain data: the verb, its own arguments, and the flags every verb shares.

mod columns;
pub mod duration;
pub mod read;
pub mod refuse;
#[cfg(test)]
mod tests;
pub mod tree;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ExpectedError;
use crate::forward::ForwardArgs;
use crate::i18n::Locale;
use crate::model::{Allow, Code};
use crate::observe::client::Connection;

/// One run of the command.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    pub globals: Globals,
    pub verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Globals {
    /// kubectl's own flags.
    pub connection: Connection,
    /// Language of everything written for people.
    pub locale: Locale,
    pub output: Output,
    /// `-v`, kubectl's 0–9.
    pub verbosity: u8,
    pub color: Color,
    /// `-A`.
    pub all_namespaces: bool,
    /// `--address` of diagnose, fix and status as typed: an IP, a host, or the URL in the browser.
    pub address: Option<String>,
    /// Whether the metadata service may be asked on EC2; false with `--no-imds`.
    pub imds: bool,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    #[default]
    Text,
    /// Text with more columns or evidence.
    Wide,
    Json,
    Yaml,
}

impl Output {
    /// For programs: English, complete, without colour, and no progress on the terminal.
    pub fn is_structured(self) -> bool {
        matches!(self, Output::Json | Output::Yaml)
    }
}

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    Always,
    Never,
}

/// The verbs.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    Diagnose(DiagnoseArgs),
    Fix(FixArgs),
    Forward(ForwardArgs),
    Status(StatusArgs),
    /// One code's entry, or with none the list of codes.
    Explain(Option<Code>),
    Version,
    Completion(clap_complete::Shell),
    /// Hidden: the background process of `forward start`; reads its orders from this record.
    ForwardDaemon(PathBuf),
}

/// `diagnose`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiagnoseArgs {
    pub targets: Vec<String>,
    /// Write what was observed to this file.
    pub save: Option<PathBuf>,
    /// Judge this file instead of a cluster.
    pub from: Option<PathBuf>,
    /// `--probe-pod`: ask from inside the cluster as well, by a pod of ours.
    pub probe_pod: bool,
}

/// `fix`.
#[derive(Debug, Clone, PartialEq)]
pub struct FixArgs {
    pub targets: Vec<String>,
    pub job: FixJob,
    /// `--yes`: do not ask.
    pub yes: bool,
    /// How long a rollout or fresh start in progress is waited for.
    pub wait: Duration,
    pub allow: BTreeSet<Allow>,
    /// Whether a forward may be opened; false with `--no-fallback`.
    pub fallback: bool,
    /// Whether a standby stays running afterwards; false with `--no-standby`.
    pub standby: bool,
}

/// What `fix` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixJob {
    Repair,
    /// Print the plan, write nothing.
    DryRun,
    /// Take back the named fix, or the last one.
    Undo(Option<String>),
    /// Show past fixes.
    List,
}

/// `status`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatusArgs {
    pub targets: Vec<String>,
    pub watch: bool,
}

/// What came of reading the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    Run(Box<Invocation>),
    /// Help or the version was asked for: this text goes to stdout.
    Show(String),
}

/// What people type by habit: `help [VERB…]` is `[VERB…] --help`, and `--version` is `version`.
fn usual(args: &[OsString]) -> Vec<OsString> {
    let mut args = args.to_vec();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("help") => {
            args.remove(1);
            args.push("--help".into());
        }
        Some("--version") => args[1] = "version".into(),
        _ => {}
    }
    args
}

/// Reads the command line; `args[0]` is the program's own name.
///
/// # Errors
/// Usage errors, as one sentence in that language with hints.
pub fn parse(args: &[OsString], locale: Locale) -> Result<Parsed, ExpectedError> {
    let command = tree::command(locale, tree::bin_name(args));
    let args = &usual(args);
    match command.clone().try_get_matches_from(args) {
        Ok(matches) => match read::invocation(&matches, locale) {
            Ok(invocation) => Ok(Parsed::Run(Box::new(invocation))),
            Err(error) => Err(error.hint(refuse::help_hint(&command, args))),
        },
        Err(error) if !error.use_stderr() => Ok(Parsed::Show(error.render().to_string())),
        Err(error) => Err(refuse::usage(&error, &command, args)),
    }
}
