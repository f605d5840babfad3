//! From clap's matches to the plain structs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;

use super::{Color, DiagnoseArgs, FixArgs, FixJob, Globals, Invocation, Output, StatusArgs, Verb, duration};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::{ForwardArgs, ForwardVerb, Limits};
use crate::i18n::Locale;
use crate::model::{Allow, Code, Text};
use crate::observe::client::Connection;

/// How long `fix` waits for a rollout or a fresh start in progress.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// `--request-timeout 0` means no limit to kubectl; this is as good, and safe to add to a clock.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The invocation that these matches describe.
///
/// # Errors
/// Values that clap could not judge: durations and codes.
pub fn invocation(matches: &ArgMatches, locale: Locale) -> Result<Invocation, ExpectedError> {
    let (name, verb) = matches.subcommand().expect("the tree requires a subcommand");
    // Global flags are known to the innermost subcommand, wherever they stood.
    let innermost = verb.subcommand().map_or(verb, |(_, inner)| inner);
    if name == "forward-daemon" {
        let record = one::<PathBuf>(verb, "record").unwrap_or_default();
        return Ok(Invocation { globals: Globals::default(), verb: Verb::ForwardDaemon(record) });
    }
    let globals = globals(innermost, locale, name != "forward")?;
    let verb = match name {
        "diagnose" => Verb::Diagnose(DiagnoseArgs {
            targets: many(verb, "target"),
            save: one(verb, "save"),
            from: one(verb, "from"),
            probe_pod: verb.get_flag("probe-pod"),
        }),
        "fix" => Verb::Fix(fix(verb)?),
        "forward" => Verb::Forward(forward(verb, &globals)?),
        "status" => Verb::Status(StatusArgs { targets: many(verb, "target"), watch: verb.get_flag("watch") }),
        "explain" => Verb::Explain(text(verb, "code").map(code).transpose()?),
        "version" => Verb::Version,
        "completion" => {
            let shell = text(verb, "shell").unwrap_or_default();
            Verb::Completion(shell.parse().expect("clap allows only the shells there are"))
        }
        other => unreachable!("verb {other} is in the tree but is not read"),
    };
    Ok(Invocation { globals, verb })
}

fn globals(m: &ArgMatches, locale: Locale, page_address: bool) -> Result<Globals, ExpectedError> {
    let request_timeout = match time(m, "request-timeout")? {
        Some(Duration::ZERO) => Some(NO_LIMIT),
        other => other,
    };
    Ok(Globals {
        connection: Connection {
            kubeconfig: one(m, "kubeconfig"),
            context: text(m, "context"),
            cluster: text(m, "cluster"),
            user: text(m, "user"),
            namespace: text(m, "namespace"),
            server: text(m, "server"),
            token: text(m, "token"),
            as_user: text(m, "as"),
            as_groups: many(m, "as-group"),
            certificate_authority: one(m, "certificate-authority"),
            client_certificate: one(m, "client-certificate"),
            client_key: one(m, "client-key"),
            tls_server_name: text(m, "tls-server-name"),
            insecure_skip_tls_verify: m.get_flag("insecure-skip-tls-verify"),
            request_timeout,
        },
        locale,
        output: match text(m, "output").as_deref() {
            Some("wide") => Output::Wide,
            Some("json") => Output::Json,
            Some("yaml") => Output::Yaml,
            _ => Output::Text,
        },
        verbosity: one(m, "v").unwrap_or(0),
        color: match text(m, "color").as_deref() {
            Some("always") => Color::Always,
            Some("never") => Color::Never,
            _ => Color::Auto,
        },
        all_namespaces: m.get_flag("all-namespaces"),
        address: page_address.then(|| text(m, "address")).flatten(),
        imds: !flag(m, "no-imds"),
    })
}

fn fix(m: &ArgMatches) -> Result<FixArgs, ExpectedError> {
    let job = if m.get_flag("list") {
        FixJob::List
    } else if m.contains_id("undo") {
        FixJob::Undo(text(m, "undo"))
    } else if m.get_flag("dry-run") {
        FixJob::DryRun
    } else {
        FixJob::Repair
    };
    let grant = |name: String| match name.as_str() {
        "system" => Allow::System,
        "node" => Allow::Node,
        "policy" => Allow::Policy,
        _ => Allow::Workload,
    };
    Ok(FixArgs {
        targets: many(m, "target"),
        job,
        yes: m.get_flag("yes"),
        wait: time(m, "wait")?.unwrap_or(DEFAULT_WAIT),
        allow: many::<String>(m, "allow").into_iter().map(grant).collect::<BTreeSet<_>>(),
        fallback: !m.get_flag("no-fallback"),
        standby: !m.get_flag("no-standby"),
    })
}

fn forward(m: &ArgMatches, globals: &Globals) -> Result<ForwardArgs, ExpectedError> {
    let (verb, m) = match m.subcommand() {
        Some(("start", inner)) => (ForwardVerb::Start, inner),
        Some(("stop", inner)) => (ForwardVerb::Stop, inner),
        Some(("restart", inner)) => (ForwardVerb::Restart, inner),
        Some(("status", inner)) => (ForwardVerb::Status, inner),
        Some(("logs", inner)) => (ForwardVerb::Logs, inner),
        Some(("service", inner)) => (ForwardVerb::Service, inner),
        _ => (ForwardVerb::Foreground, m),
    };
    let mut target = text(m, "target");
    let mut pairs: Vec<String> = many(m, "ports");
    // TARGET may be left out before the ports; no object's name holds a colon, and none of ours is a number.
    if let Some(port) = target.take_if(|t| t.contains(':') || t.parse::<u32>().is_ok()) {
        pairs.insert(0, port);
    }
    Ok(ForwardArgs {
        verb,
        target,
        namespace: globals.connection.namespace.clone(),
        pairs,
        addresses: many(m, "address"),
        mode: text(m, "mode").and_then(|mode| mode.parse().ok()).unwrap_or_default(),
        front: flag(m, "front"),
        all: flag(m, "all"),
        follow: flag(m, "follow"),
        raw: flag(m, "raw"),
        tail: one(m, "tail"),
        json: globals.output == Output::Json,
        allow: many(m, "allow-cidr"),
        limits: limits(m)?,
        proxy_protocol: text(m, "proxy-protocol").is_some(),
        no_wait_page: flag(m, "no-wait-page"),
        metrics: text(m, "metrics"),
        systemd: flag(m, "systemd"),
        print_unit: flag(m, "print-unit"),
    })
}

fn limits(m: &ArgMatches) -> Result<Limits, ExpectedError> {
    let default = Limits::default();
    // Less than a second is a second: what is asked for is a limit, and 0 means none.
    let seconds = |limit: Duration| if limit.is_zero() { 0 } else { limit.as_secs().max(1) };
    Ok(Limits {
        connections: one(m, "max-connections").unwrap_or(default.connections),
        per_client: one(m, "max-per-client").unwrap_or(default.per_client),
        parked: default.parked,
        patience_seconds: known_time(m, "pod-running-timeout")?.map_or(default.patience_seconds, seconds),
        first_byte_seconds: known_time(m, "first-byte-timeout")?.map_or(default.first_byte_seconds, seconds),
    })
}

/// A duration that may be unknown to this verb.
fn known_time(m: &ArgMatches, id: &'static str) -> Result<Option<Duration>, ExpectedError> {
    if m.try_contains_id(id).unwrap_or(false) { time(m, id) } else { Ok(None) }
}

fn code(given: String) -> Result<Code, ExpectedError> {
    given.parse().map_err(|()| {
        ExpectedError::new(Exit::Usage, Text::new("error.code_malformed").with("code", &given))
            .hint(Text::new("error.hint.codes"))
    })
}

fn time(m: &ArgMatches, id: &'static str) -> Result<Option<Duration>, ExpectedError> {
    let Some(given) = text(m, id) else { return Ok(None) };
    duration::parse(&given).map(Some).ok_or_else(|| {
        ExpectedError::new(Exit::Usage, Text::new("error.usage.duration").with("flag", id).with("value", &given))
    })
}

fn text(m: &ArgMatches, id: &str) -> Option<String> {
    one(m, id)
}

/// A value that may be unknown to this verb.
fn one<T: Clone + Send + Sync + 'static>(m: &ArgMatches, id: &str) -> Option<T> {
    m.try_get_one::<T>(id).ok().flatten().cloned()
}

fn many<T: Clone + Send + Sync + 'static>(m: &ArgMatches, id: &str) -> Vec<T> {
    m.try_get_many::<T>(id).ok().flatten().map(|values| values.cloned().collect()).unwrap_or_default()
}

fn flag(m: &ArgMatches, id: &str) -> bool {
    one(m, id).unwrap_or(false)
}
