//! The verb `forward`: in this terminal, or as a process in the background.

pub mod order;
#[cfg(unix)]
mod service;
mod words;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::Globals;
use super::output;
use super::signals::asked_to_stop;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::run::Forward;
use crate::forward::spec::{Mode, Spec};
use crate::forward::{ForwardArgs, ForwardVerb};
use crate::i18n::{Locale, say};
use crate::model::{TargetWord, Text};
use crate::supervise::{self, Files, Status, log};

/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(250);

/// Carries out the verb.
///
/// # Errors
/// Usage, connection, or whatever keeps a forward from beginning or ending.
pub async fn run(globals: Globals, args: ForwardArgs) -> Result<Exit, ExpectedError> {
    match args.verb {
        ForwardVerb::Foreground => foreground(&globals, &args).await,
        #[cfg(unix)]
        ForwardVerb::Start if args.print_unit => service::print(&globals, &args).await,
        #[cfg(unix)]
        ForwardVerb::Start if args.systemd => service::install(&globals, &args).await,
        ForwardVerb::Start => start(&globals, &args).await,
        #[cfg(unix)]
        ForwardVerb::Service => service::serve(&globals, &args).await,
        #[cfg(not(unix))]
        ForwardVerb::Service => Err(supervise::Error::ForegroundOnly.into()),
        ForwardVerb::Stop => stop(&globals, &args).await,
        ForwardVerb::Restart => restart(&globals, &args).await,
        ForwardVerb::Status => status(&globals, &args).await,
        ForwardVerb::Logs => logs(&globals, &args).await,
    }
}

/// The background process.
///
/// # Errors
/// Where it cannot begin.
pub async fn daemon(record: PathBuf) -> Result<Exit, ExpectedError> {
    #[cfg(unix)]
    return supervise::daemon::run(&record).await;
    #[cfg(not(unix))]
    {
        drop(record);
        Err(supervise::Error::ForegroundOnly.into())
    }
}

fn tell(locale: Locale, level: Text, text: &Text) {
    output::note(|out| writeln!(out, "{} {}", say(locale, &level), say(locale, text)));
}

fn inform(locale: Locale, text: &Text) {
    tell(locale, Text::new("ui.level.info"), text);
}

fn warn_of_tunnel(locale: Locale, spec: &Spec) {
    if spec.mode == Mode::Tunnel {
        tell(locale, Text::new("ui.level.warning"), &Text::new("forward.tunnel_is_local"));
    }
    if spec.addresses.iter().any(std::net::IpAddr::is_unspecified) {
        tell(locale, Text::new("ui.level.warning"), &Text::new("forward.open_to_all"));
    }
}

async fn foreground(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    let locale = globals.locale;
    let spec = order::order(globals, args).await?;
    warn_of_tunnel(locale, &spec);
    let forward = Forward::open(spec).await?;
    let view = forward.view();
    output::result(|out| view.urls().iter().try_for_each(|url| writeln!(out, "{url}")))?;
    inform(locale, &Text::new("forward.foreground"));
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn({
        let (stop, hurry) = (stop.clone(), hurry.clone());
        async move {
            if asked_to_stop().await {
                stop.cancel();
            }
            if asked_to_stop().await {
                hurry.cancel();
            }
        }
    });
    match forward.run(&stop, &hurry).await {
        Some(over) => {
            tell(locale, Text::new("ui.level.error"), &words::why(&over));
            Ok(Exit::Problem)
        }
        None => Ok(Exit::Ok),
    }
}

async fn start(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    if cfg!(not(unix)) {
        return Err(supervise::Error::ForegroundOnly.into());
    }
    let spec = order::order(globals, args).await?;
    warn_of_tunnel(globals.locale, &spec);
    let started = supervise::start(&spec).await?;
    told_started(globals.locale, &started)
}

fn told_started(locale: Locale, started: &supervise::Started) -> Result<Exit, ExpectedError> {
    output::result(|out| started.urls.iter().try_for_each(|url| writeln!(out, "{url}")))?;
    let text = if started.already {
        Text::new("forward.already").with("id", &started.id).with("pid", started.pid)
    } else {
        Text::new("forward.started").with("id", &started.id).with("pid", started.pid)
    };
    inform(locale, &text);
    inform(locale, &Text::new("forward.how_to_stop").with("id", &started.id));
    Ok(Exit::Ok)
}

async fn stop(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    let ids = if args.all { own_ids()? } else { vec![one(args)?] };
    for id in &ids {
        supervise::stop(id).await?;
        inform(globals.locale, &Text::new("forward.stopped").with("id", id));
    }
    if ids.is_empty() {
        inform(globals.locale, &Text::new("forward.none"));
    }
    Ok(Exit::Ok)
}

async fn restart(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    let started = supervise::restart(&one(args)?, globals.connection.token.clone()).await?;
    let told = told_started(globals.locale, &started);
    if let Some(unit) = &started.unit {
        inform(globals.locale, &Text::new("unit.restarted").with("unit", unit));
    }
    told
}

async fn status(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    let mut all = supervise::now().await.map_err(supervise::Error::Files)?;
    if let Some(target) = &args.target {
        all.retain(|s| fits(s, target, args.namespace.as_deref()));
        if all.is_empty() {
            return Err(no_such(target));
        }
    }
    if globals.output.is_structured() {
        let list = serde_json::json!({"apiVersion": "bookaccess/v1", "kind": "ForwardList", "items": all});
        output::result(|out| match globals.output {
            super::args::Output::Yaml => {
                out.write_all(serde_saphyr::to_string(&list).map_err(std::io::Error::other)?.as_bytes())
            }
            _ => writeln!(out, "{list:#}"),
        })?;
    } else if all.is_empty() {
        inform(globals.locale, &Text::new("forward.none"));
    } else {
        output::result(|out| all.iter().try_for_each(|s| out.write_all(words::status(globals.locale, s).as_bytes())))?;
    }
    Ok(if all.iter().all(|s| s.report.phase.is_live()) { Exit::Ok } else { Exit::Problem })
}

async fn logs(globals: &Globals, args: &ForwardArgs) -> Result<Exit, ExpectedError> {
    let path = Files::own(&one(args)?).map_err(supervise::Error::Files)?.log();
    let failed = |source| supervise::Error::Files(supervise::registry::Error::File { path: path.clone(), source });
    let (entries, mut follower) = log::Follower::open(&path).map_err(failed)?;
    let skip = args.tail.map_or(0, |tail| entries.len().saturating_sub(tail));
    let line = |entry: &log::Entry| {
        if args.raw { entry.raw.clone() } else { words::log_line(globals.locale, entry) }
    };
    output::result(|out| entries[skip..].iter().try_for_each(|e| writeln!(out, "{}", line(e))))?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        }
        // The log of a stopped forward is gone.
        let Ok(news) = follower.news() else { return Ok(Exit::Ok) };
        if output::result(|out| news.iter().try_for_each(|e| writeln!(out, "{}", line(e))))? == output::Reader::Gone {
            return Ok(Exit::Ok);
        }
    }
}

fn own_ids() -> Result<Vec<String>, ExpectedError> {
    let own = supervise::registry::own().map_err(supervise::Error::Files)?;
    Ok(own.iter().map(|f| f.id().to_owned()).collect())
}

/// The forward that is meant: by id, by target, or the only one there is.
fn one(args: &ForwardArgs) -> Result<String, ExpectedError> {
    let ids = own_ids()?;
    let Some(target) = &args.target else {
        return match ids.as_slice() {
            [] => Err(ExpectedError::new(Exit::Usage, Text::new("error.forward.none"))),
            [one] => Ok(one.clone()),
            many => Err(ExpectedError::new(Exit::Usage, Text::new("error.forward.several"))
                .hint(Text::new("error.hint.candidates").with("names", many.join(", ")))),
        };
    };
    if ids.contains(target) {
        return Ok(target.clone());
    }
    let all = supervise::list().map_err(supervise::Error::Files)?;
    let mut fitting: Vec<String> = all
        .iter()
        .filter(|s| ids.contains(&s.report.id) && fits(s, target, args.namespace.as_deref()))
        .map(|s| s.report.id.clone())
        .collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            fitting.push(last);
            Err(ExpectedError::new(Exit::Usage, Text::new("error.ambiguous").with("argument", target))
                .hint(Text::new("error.hint.candidates").with("names", fitting.join(", "))))
        }
        (None, _) => Err(no_such(target)),
    }
}

fn no_such(id: &str) -> ExpectedError {
    supervise::Error::Files(supervise::registry::Error::NoSuch { id: id.to_owned() }).into()
}

fn fits(status: &Status, target: &str, namespace: Option<&str>) -> bool {
    let report = &status.report;
    if report.id == target {
        return true;
    }
    let Ok(word) = target.parse::<TargetWord>() else { return false };
    let namespace = word.namespace.as_deref().or(namespace);
    word.kind.api_name() == report.object.kind
        && word.name == report.object.name
        && namespace.is_none_or(|n| n == report.object.namespace())
}
