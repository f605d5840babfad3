//! The verb `fix`: restore access first, then repair the cause, verify, and be able to take it all back.

pub mod fallback;
mod list;
mod outcome;
mod repair;
mod undo;

use std::sync::atomic::{AtomicBool, Ordering};

pub use outcome::{carried, counts, is_broken, leads_here};
use tokio_util::sync::CancellationToken;

use super::args::{FixArgs, FixJob, Globals};
use super::output;
use super::signals::asked_to_stop;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::render::{Event, Style};

/// Does the job that the flags name.
///
/// # Errors
/// Whatever keeps `fix` from its work; a page that stays broken is none.
pub async fn run(globals: Globals, args: FixArgs) -> Result<Exit, ExpectedError> {
    match &args.job {
        FixJob::Repair => repair::run(&globals, &args, false).await,
        FixJob::DryRun => repair::run(&globals, &args, true).await,
        FixJob::Undo(id) => undo::run(&globals, &args, id.as_deref()).await,
        FixJob::List => list::run(&globals, &args).await,
    }
}

/// Says on stderr what happens, unless a program reads.
pub struct Progress {
    pub style: Style,
    silent: bool,
}

impl Progress {
    pub fn new(globals: &Globals) -> Self {
        let color = output::colors_stderr(globals.color);
        Self { style: Style { locale: globals.locale, color, wide: false }, silent: globals.output.is_structured() }
    }

    pub fn say(&self, event: &Event) {
        if !self.silent {
            output::note(|out| {
                use std::io::Write;
                event.lines(&self.style).iter().try_for_each(|line| writeln!(out, "{line}"))
            });
        }
    }
}

/// Ctrl-C and SIGTERM: the token ends waits, and a step under way is finished or reverted.
pub struct Interrupt {
    pub token: CancellationToken,
    /// Whether a step is under way, so that the person is told why it does not end at once.
    pub acting: std::sync::Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens from now on.
    pub fn listen(globals: &Globals) -> Self {
        let (token, acting) = (CancellationToken::new(), std::sync::Arc::new(AtomicBool::new(false)));
        let (cancel, busy, progress) = (token.clone(), acting.clone(), Progress::new(globals));
        tokio::spawn(async move {
            if !asked_to_stop().await {
                return;
            }
            if busy.load(Ordering::Relaxed) {
                progress.say(&Event::Finishing);
            }
            cancel.cancel();
        });
        Self { token, acting }
    }

    /// The result of `work`, or [`ExpectedError::interrupted`].
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, ExpectedError> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(ExpectedError::interrupted()),
            done = work => Ok(done),
        }
    }
}
