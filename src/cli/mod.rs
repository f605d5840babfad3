//! The edge where a person stands: the command line in, sentences and exit codes out.

pub mod args;
pub mod completion;
pub mod consent;
pub mod diagnose;
pub mod explain;
pub mod fix;
pub mod forward;
pub mod output;
pub mod panic;
pub mod reporter;
pub mod scope;
pub mod signals;
pub mod status;
pub mod version;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use args::{Invocation, Parsed, Verb};

use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::ForwardVerb;
use crate::i18n::Locale;
use crate::telemetry;

/// The whole run, from the command line to the exit code.
pub fn main(args: &[OsString]) -> ExitCode {
    let locale = Locale::choose(args);
    panic::speak(locale);
    match start(args, locale) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::complain(locale, &error);
            error.exit.into()
        }
    }
}

fn start(args: &[OsString], locale: Locale) -> Result<Exit, ExpectedError> {
    let invocation = match args::parse(args, locale)? {
        Parsed::Show(text) => {
            output::result(|out| out.write_all(text.as_bytes()))?;
            return Ok(Exit::Ok);
        }
        Parsed::Run(invocation) => *invocation,
    };
    // The background process logs to its own file.
    let is_service = matches!(&invocation.verb, Verb::Forward(args) if args.verb == ForwardVerb::Service);
    if !is_service && !matches!(invocation.verb, Verb::ForwardDaemon(_)) {
        telemetry::init(invocation.globals.verbosity);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(output::no_runtime)?;
    let outcome = runtime.block_on(run(invocation));
    // A read of stdin may still hang in a thread of the pool; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// Does what the invocation asks for.
///
/// # Errors
/// Whatever keeps the verb from its work; a finding is none.
pub async fn run(invocation: Invocation) -> Result<Exit, ExpectedError> {
    let Invocation { globals, verb } = invocation;
    match verb {
        Verb::Diagnose(args) => diagnose::run(globals, args).await,
        Verb::Fix(args) => fix::run(globals, args).await,
        Verb::Forward(args) => forward::run(globals, args).await,
        Verb::Status(args) => status::run(globals, args).await,
        Verb::Explain(code) => explain::run(&globals, code),
        Verb::Version => version::run(&globals),
        Verb::Completion(shell) => completion::run(&globals, shell),
        Verb::ForwardDaemon(record) => forward::daemon(record).await,
    }
}
