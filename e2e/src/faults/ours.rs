//! What may happen to our own process: restarted, upgraded, killed, wedged.

use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::plugin::FOLDER;
use crate::way::Open;

/// `forward restart`.
pub fn restarted(open: &Arc<Open>) -> Fault {
    let open = Arc::clone(open);
    Fault::new("our process is restarted", move |_: &Cluster| restart(&open), nothing)
}

/// `forward restart` after another copy of the program has taken the place of the first.
pub fn upgraded(open: &Arc<Open>) -> Fault {
    let open = Arc::clone(open);
    Fault::new(
        "our process is upgraded",
        move |_: &Cluster| {
            // What follows the end of an ELF file is no part of the program, but makes the file another one.
            let line = format!(
                "cd {FOLDER}; cp kubectl-bookaccess next; echo another copy >>next; mv next kubectl-bookaccess"
            );
            open.operator.place.shell(&line)?;
            restart(&open)
        },
        nothing,
    )
}

fn restart(open: &Open) -> Result<()> {
    let before = open.status()?["pid"].clone();
    open.operator.must(&["forward", "restart"], 0)?;
    let after = open.status()?["pid"].clone();
    ensure!(after.is_u64() && after != before, "the same process goes on: {before}, {after}");
    Ok(())
}

/// SIGKILL, and at once `forward start` as before.
pub fn killed_and_started(open: &Arc<Open>) -> Fault {
    let open = Arc::clone(open);
    Fault::new(
        "our process is killed and started again",
        move |_: &Cluster| {
            open.signal("KILL")?;
            open.start()
        },
        nothing,
    )
}

/// SIGKILL, and nobody starts it again.
pub fn killed(open: &Arc<Open>) -> Fault {
    let open = Arc::clone(open);
    Fault::new("our process is killed", move |_: &Cluster| open.signal("KILL").map(drop), nothing)
}

/// SIGSTOP: it lives and does nothing.
pub fn wedged(open: &Arc<Open>) -> Fault {
    let (open, healed) = (Arc::clone(open), Arc::clone(open));
    Fault::new(
        "our process is wedged",
        move |_: &Cluster| open.signal("STOP").map(drop),
        move |_: &Cluster| healed.signal("CONT").map(drop),
    )
}

fn nothing(_: &Cluster) -> Result<()> {
    Ok(())
}
