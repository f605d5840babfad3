//! Starts a forward as a process of its own, and returns when it is ready.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::protocol::{FirstWord, Record, VERSION};
use super::registry::{self, Files};
use super::{Error, Started, control, log, stop, unit};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::Spec;
use crate::forward::watch::Over;
use crate::observe::client::pinned;

/// The new process says its first word within this time: connecting, looking and the first probe of the NodePort.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// What ended by itself is shown so long.
const KEEP_ENDED_HOURS: i64 = 24;

/// Starts it, and returns once it listens and knows its pods. Where the same order runs already, that one is returned;
/// one that differs in address, mode or the like hands its sockets over. A forward that stands in the way because its
/// cluster was replaced by this one gives way.
///
/// # Errors
/// See [`Error`]; then nothing new runs and no new file is left but the log.
pub async fn start(spec: &Spec) -> Result<Started, Error> {
    let files = Files::own(&spec.id())?;
    prune();
    make_room(spec).await?;
    let (spec, kubeconfig_env) = anchored(spec);
    let mut former = None;
    if let Some(running) = running(&files) {
        former = files.read_record().ok();
        let same = |record: &Record| record.spec == Spec { connection: record.spec.connection.clone(), ..spec.clone() };
        if former.as_ref().is_some_and(same) {
            return Ok(running);
        }
        if let Some(unit) = former.as_ref().and_then(|record| record.unit.as_ref()) {
            // A service would be started again beside the new order.
            unit::remove(unit).await?;
        }
        vacate(&files).await?;
    }
    let token = spec.connection.token.clone();
    let record = Record { version: VERSION, spec, kubeconfig_env, token: token.is_some(), unit: None };
    files.write_record(&record)?;
    let started = spawn(&files, &record, token).await;
    if started.is_err() {
        match former {
            // It goes on under the orders it had.
            Some(former) if files.is_alive() => files.write_record(&former)?,
            _ if !files.is_alive() => drop(std::fs::remove_file(files.record())),
            _ => {}
        }
    }
    started
}

/// Starts a forward again with the same orders, from this binary. One that runs hands its sockets over: nobody is
/// refused meanwhile, and its open connections end by themselves.
///
/// # Errors
/// See [`Error`]; one that runs then goes on.
pub async fn restart(id: &str, token: Option<String>) -> Result<Started, Error> {
    let files = Files::own(id)?;
    let record = files.read_record()?;
    if let Some(unit) = &record.unit {
        // A successor of ours could be made the service's main process (MAINPID=), but it would stand outside of its
        // control group, limits and sandbox. systemd starts it, and keeps the sockets meanwhile.
        unit::restart(unit).await?;
        let started = running(&files).ok_or_else(|| registry::Error::NoSuch { id: id.to_owned() })?;
        return Ok(Started { already: false, ..started });
    }
    if record.token && token.is_none() {
        return Err(Error::TokenNeeded { id: id.to_owned() });
    }
    vacate(&files).await?;
    spawn(&files, &record, token).await
}

/// Ends what cannot hand its sockets over.
async fn vacate(files: &Files) -> Result<(), Error> {
    if control::answers(files).await { Ok(()) } else { stop::end(files).await }
}

/// Who serves these files' order.
pub(crate) fn running(files: &Files) -> Option<Started> {
    let pid = files.holder().ok()??.pid?;
    let status = files.read_status()?;
    let pid = u32::try_from(pid.as_raw_nonzero().get()).ok()?;
    Some(Started { id: files.id().to_owned(), urls: status.report.urls, pid, already: true, unit: files.unit() })
}

async fn spawn(files: &Files, record: &Record, token: Option<String>) -> Result<Started, Error> {
    let program = std::env::current_exe().map_err(|source| spawn_error(Path::new("self"), source))?;
    let failed = |source| spawn_error(&program, source);
    let stderr = log::open(&files.log()).map_err(failed)?.into_file();
    let mut command = Command::new(&program);
    command
        .arg("forward-daemon")
        .arg(files.record())
        .stdin(if token.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(false);
    if let Some(paths) = &record.kubeconfig_env {
        command.env("KUBECONFIG", paths);
    }
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(mut stdin), Some(token)) = (child.stdin.take(), token) {
        // Neither a file nor the process list shows what goes through a pipe.
        stdin.write_all(token.as_bytes()).await.map_err(failed)?;
    }
    let stdout = child.stdout.take().ok_or_else(|| failed(std::io::Error::other("no pipe")))?;
    let mut line = String::new();
    let read = tokio::time::timeout(READY_TIMEOUT, BufReader::new(stdout).read_line(&mut line)).await;
    let word = serde_json::from_str::<FirstWord>(&line);
    let pid = child.id().unwrap_or_default();
    match (read, word) {
        (Ok(Ok(_)), Ok(FirstWord::Ready { urls })) => {
            Ok(Started { id: files.id().to_owned(), urls, pid, already: false, unit: None })
        }
        (Ok(Ok(_)), Ok(FirstWord::Failed { exit, text, hints })) => {
            let _ = child.wait().await;
            Err(ExpectedError { exit: exit_of(exit), text, hints }.into())
        }
        _ => {
            let _ = child.start_kill();
            let _ = child.wait().await;
            let last = log::entries(&files.log()).ok().and_then(|mut e| e.pop()).map(|e| e.raw).unwrap_or_default();
            Err(Error::Mute { last })
        }
    }
}

fn spawn_error(program: &Path, source: std::io::Error) -> Error {
    Error::Spawn { program: program.display().to_string(), source }
}

fn exit_of(code: u8) -> Exit {
    [Exit::Usage, Exit::Forbidden, Exit::Unreachable].into_iter().find(|e| *e as u8 == code).unwrap_or(Exit::Problem)
}

/// Tied to today's context, paths made absolute: the process lives on, and in another folder.
pub(crate) fn anchored(spec: &Spec) -> (Spec, Option<String>) {
    let mut spec = Spec { connection: pinned(&spec.connection), ..spec.clone() };
    let connection = &mut spec.connection;
    for path in [
        &mut connection.kubeconfig,
        &mut connection.certificate_authority,
        &mut connection.client_certificate,
        &mut connection.client_key,
    ] {
        *path = path.take().map(absolute);
    }
    let env = match (&connection.kubeconfig, std::env::var_os("KUBECONFIG")) {
        (None, Some(paths)) => {
            let paths = std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()).map(absolute);
            std::env::join_paths(paths).ok().and_then(|p| p.into_string().ok())
        }
        _ => None,
    };
    (spec, env)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Ends forwards that hold the wanted ports for a cluster that the same kubeconfig no longer leads to: it was rebuilt.
async fn make_room(spec: &Spec) -> Result<(), Error> {
    let (anchored, env) = anchored(spec);
    let wanted: Vec<_> = spec.listen_addresses().into_iter().flatten().filter(|a| a.port() != 0).collect();
    for files in registry::own()? {
        let Ok(old) = files.read_record() else { continue };
        let same_way = old.spec.connection.kubeconfig == anchored.connection.kubeconfig
            && old.spec.connection.context == anchored.connection.context
            && old.kubeconfig_env == env;
        let clash = old.spec.listen_addresses().iter().flatten().any(|a| wanted.contains(a));
        let rebuilt = !spec.cluster.is_empty() && !old.spec.cluster.is_empty() && old.spec.cluster != spec.cluster;
        if same_way && clash && rebuilt && files.is_alive() {
            stop::end(&files).await?;
            if let Some(mut status) = files.read_status() {
                let message = format!("another cluster answers: kube-system has uid {}", spec.cluster);
                status.report.over = Some(Over::ClusterGone { message });
                status.report.phase = crate::forward::report::Phase::Over;
                files.write_status(&status)?;
            }
        }
    }
    Ok(())
}

/// Forgets what ended by itself long ago.
fn prune() {
    let Ok(limit) = Timestamp::now().checked_sub(KEEP_ENDED_HOURS.hours()) else { return };
    for files in registry::own().unwrap_or_default() {
        if files.read_status().is_some_and(|s| s.written_at < limit) && !files.is_alive() {
            files.remove();
        }
    }
}
