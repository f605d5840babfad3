//! `fix --undo`: takes back what a fix changed, and ends what it started.

use std::sync::Arc;

use super::super::args::{FixArgs, Globals};
use super::super::scope;
use super::super::{consent, output};
use super::fallback::Fallback;
use super::repair::failed;
use super::{Interrupt, Progress};
use crate::apply::{self, Settings};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::observe::{self, Cluster};
use crate::render::{self, Event};

/// Takes back the named fix, or the newest.
///
/// # Errors
/// Where there is none, consent was not given, or the API server refuses.
pub async fn run(globals: &Globals, args: &FixArgs, id: Option<&str>) -> Result<Exit, ExpectedError> {
    let progress = Progress::new(globals);
    let interrupt = Interrupt::listen(globals);
    let cluster = interrupt.or(observe::connect(&globals.connection)).await??;
    let namespaces = namespaces(globals, args, &cluster).await;
    let found = interrupt.or(apply::find_undoable(&cluster, &namespaces, id)).await?;
    let fix = match found {
        Ok(fix) => fix,
        Err(error @ apply::Error::NothingToUndo) => {
            let said = progress.style.say(&error.text());
            output::result(|out| {
                use std::io::Write;
                writeln!(out, "{said}")
            })?;
            return Ok(Exit::Ok);
        }
        Err(error) => return Err(failed(error)),
    };
    if fix.past.torn > 0 {
        progress.say(&Event::JournalCutOff { id: fix.past.id.clone() });
    }
    let targets: std::collections::BTreeSet<String> = fix.steps().map(|s| s.target.clone()).collect();
    progress.say(&Event::Undoing { id: fix.past.id.clone(), steps: fix.steps().count() });
    targets.into_iter().for_each(|target| progress.say(&Event::UndoMayBreak { target }));
    if !args.yes {
        interrupt.or(consent::ask(globals.locale, render::prompt::undo())).await??;
    }
    let forwarder = Arc::new(Fallback::new(cluster.clone(), globals.locale));
    let settings = Settings::new(&cluster, forwarder, interrupt.token.clone()).map_err(failed)?;
    interrupt.acting.store(true, std::sync::atomic::Ordering::Relaxed);
    let undone = apply::undo(&cluster, &settings, &fix).await.map_err(failed)?;
    for step in undone.undone {
        progress.say(&Event::Undone { step });
    }
    let mut exit = Exit::Ok;
    for (step, error) in undone.refused {
        progress.say(&Event::UndoRefused { step, reason: error.text() });
        exit = Exit::Problem;
    }
    Ok(exit)
}

/// Where mirrored journals are looked for: the targets' namespaces, or those that targets usually have.
pub(super) async fn namespaces(globals: &Globals, args: &FixArgs, cluster: &Cluster) -> Vec<String> {
    let mut found: Vec<String> = match scope::targets(globals, cluster, &args.targets).await {
        Ok(targets) => targets.into_iter().map(|t| t.namespace).collect(),
        // The Service may be gone; what was done to it is still known.
        Err(_) => vec![cluster.namespace.clone(), observe::targets::BOOKINFO.to_owned()],
    };
    found.sort();
    found.dedup();
    found
}
