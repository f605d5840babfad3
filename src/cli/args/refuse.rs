//! clap's errors in our own words: what is wrong, what would be right, in one sentence with hints.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use super::tree;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::model::Text;
use crate::observe::targets::nearest;

/// The sentence for one of clap's errors.
pub fn usage(error: &Error, command: &Command, args: &[OsString]) -> ExpectedError {
    let arg = context(error, ContextKind::InvalidArg);
    let value = context(error, ContextKind::InvalidValue);
    let refused = match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => {
            let refused = expected(Text::new("error.usage.unknown_flag").with("flag", &arg));
            match context(error, ContextKind::SuggestedArg) {
                nearest if nearest.is_empty() => refused,
                nearest => refused.hint(Text::new("error.hint.nearest").with("name", nearest)),
            }
        }
        ErrorKind::UnknownArgument => expected(Text::new("error.usage.unexpected").with("value", &arg)),
        ErrorKind::InvalidSubcommand => unknown_verb(&context(error, ContextKind::InvalidSubcommand), command),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            expected(Text::new("error.usage.no_verb"))
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            expected(Text::new("error.usage.no_value").with("flag", bare_flag(&arg)))
        }
        ErrorKind::InvalidValue => invalid_value(error, &arg, &value),
        ErrorKind::ValueValidation if bare(&arg) == "v" => expected(
            Text::new("error.usage.bad_value")
                .with("flag", bare_flag(&arg))
                .with("value", &value)
                .with("allowed", "0-9"),
        ),
        ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
            expected(Text::new("error.usage.malformed").with("flag", bare_flag(&arg)).with("value", &value))
        }
        ErrorKind::NoEquals | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            expected(Text::new("error.usage.no_value").with("flag", bare_flag(&arg)))
        }
        ErrorKind::TooManyValues => expected(Text::new("error.usage.takes_no_value").with("flag", bare_flag(&arg))),
        ErrorKind::ArgumentConflict => {
            expected(Text::new("error.usage.conflict").with("flag", bare_flag(&arg)).with("other", prior(error)))
        }
        ErrorKind::MissingRequiredArgument => {
            expected(Text::new("error.usage.missing").with("name", arg.trim_matches(['<', '>'])))
        }
        _ => expected(Text::new("error.usage.other").with("message", one_line(error))),
    };
    refused.hint(help_hint(command, args))
}

/// Where the help of the verb in question is.
pub fn help_hint(command: &Command, args: &[OsString]) -> Text {
    Text::new("error.hint.help").with("command", help_command(command, args))
}

fn expected(text: Text) -> ExpectedError {
    ExpectedError::new(Exit::Usage, text)
}

fn invalid_value(error: &Error, arg: &str, value: &str) -> ExpectedError {
    let allowed = context(error, ContextKind::ValidValue);
    let text = if arg.starts_with('-') {
        Text::new("error.usage.bad_value").with("flag", bare_flag(arg)).with("value", value).with("allowed", allowed)
    } else {
        let name = arg.trim_matches(['<', '>']);
        Text::new("error.usage.bad_argument").with("name", name).with("value", value).with("allowed", allowed)
    };
    match context(error, ContextKind::SuggestedValue) {
        nearest if nearest.is_empty() => expected(text),
        nearest => expected(text).hint(Text::new("error.hint.nearest").with("name", nearest)),
    }
}

fn unknown_verb(given: &str, command: &Command) -> ExpectedError {
    let verbs: Vec<&str> = command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
    let text = Text::new("error.usage.unknown_verb").with("verb", given).with("verbs", verbs.join(", "));
    match nearest(given, verbs.iter().copied()) {
        Some(name) => expected(text).hint(Text::new("error.hint.nearest").with("name", name)),
        None => expected(text),
    }
}

/// The help command of the verb that was named, or of the whole.
fn help_command(command: &Command, args: &[OsString]) -> String {
    let bin = tree::bin_name(args);
    let mut path = vec![bin];
    let mut at = command;
    for word in args.iter().skip(1).filter_map(|a| a.to_str()) {
        let Some(next) = at.find_subcommand(word).filter(|c| !c.is_hide_set()) else { continue };
        path.push(word.to_owned());
        at = next;
    }
    format!("{} --help", path.join(" "))
}

fn prior(error: &Error) -> String {
    bare_flag(&context(error, ContextKind::PriorArg))
}

fn context(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(s)) => s.clone(),
        Some(ContextValue::Strings(all)) => all.join(", "),
        Some(ContextValue::Number(n)) => n.to_string(),
        _ => String::new(),
    }
}

/// `--output <FORMAT>` → `--output`.
fn bare_flag(arg: &str) -> String {
    arg.split_whitespace().next().unwrap_or_default().to_owned()
}

fn bare(arg: &str) -> String {
    bare_flag(arg).trim_start_matches('-').to_owned()
}

fn one_line(error: &Error) -> String {
    error.render().to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
