//! Ends background forwards.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::registry::{self, Files};
use super::{Error, control, unit};
use crate::forward::Kind;
use crate::forward::run::DRAIN;

/// How often the lock is looked at while a process ends.
const POLL: Duration = Duration::from_millis(20);

/// Ends a forward, lets its open connections end for a while, and takes its files and rules away. That it had ended by
/// itself is no error.
///
/// # Errors
/// Where there is no such forward, or its process does not end.
pub async fn stop(id: &str) -> Result<(), Error> {
    let files = Files::own(id)?;
    if !files.record().exists() && !files.status().exists() {
        return Err(registry::Error::NoSuch { id: id.to_owned() }.into());
    }
    if let Some(unit) = files.unit() {
        unit::remove(&unit).await?;
    }
    end(&files).await?;
    files.remove();
    Ok(())
}

/// Ends every forward of one Service; the ids of those there were.
///
/// # Errors
/// See [`stop`].
pub async fn stop_target(namespace: &str, service: &str) -> Result<Vec<String>, Error> {
    let mut stopped = Vec::new();
    for files in registry::own()? {
        let Ok(record) = files.read_record() else { continue };
        let spec = record.spec;
        if spec.kind == Kind::Service && spec.namespace == namespace && spec.name == service {
            stop(files.id()).await?;
            stopped.push(files.id().to_owned());
        }
    }
    Ok(stopped)
}

/// Ends the process only; its files stay. A successor that takes its place meanwhile is ended as well.
pub(super) async fn end(files: &Files) -> Result<(), Error> {
    let signals = [(Signal::TERM, DRAIN + Duration::from_secs(5)), (Signal::KILL, Duration::from_secs(5))];
    for (signal, patience) in signals {
        let deadline = Instant::now() + patience;
        let mut told = None;
        while let Some(holder) = files.holder()?
            && Instant::now() < deadline
        {
            if told != Some(holder) {
                told = Some(holder);
                match holder.pid {
                    // It may have ended just now; the lock tells.
                    Some(pid) => drop(kill_process(pid, signal)),
                    // In another pid namespace, where no signal of ours gets.
                    None if signal == Signal::TERM && control::stop(files).await => {}
                    None => return Err(Error::Stuck { id: files.id().to_owned(), pid: 0 }),
                }
            }
            sleep(POLL).await;
        }
    }
    if let Some(holder) = files.holder()? {
        let pid = holder.pid.map_or(0, |p| p.as_raw_nonzero().get());
        return Err(Error::Stuck { id: files.id().to_owned(), pid: u32::try_from(pid).unwrap_or_default() });
    }
    remove_rules(files).await;
    Ok(())
}

/// A killed process leaves its table behind; it does nothing without leases, but it is not ours to leave.
async fn remove_rules(files: &Files) {
    #[cfg(target_os = "linux")]
    if crate::statedir::is_root() {
        use crate::forward::front::{remove_table, table_name, tables};
        let table = table_name(files.id());
        if tables().await.is_ok_and(|all| all.contains(&table)) {
            let _ = remove_table(&table).await;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = files;
}
