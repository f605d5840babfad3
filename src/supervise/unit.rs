//! A forward as a service of systemd's: the unit's text, and how it is installed, started again and taken away.
//!
//! The unit holds the order in the user's own words, not in a record: each start asks the cluster anew for what the
//! words leave open, so that a cluster rebuilt under the same kubeconfig is served by the same unit.
//!
//! A `.socket` unit would keep the port bound as well, but it knows nothing of the ports that rules lead to, which are
//! chosen when the forward begins, nor of several sockets that share an address (one for each data thread). So the
//! forward has its sockets kept (`FileDescriptorStoreMax=`), see [`super::notify`].

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::registry::{self, Files};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::forward::listener::Socket;
use crate::forward::run::DRAIN;
use crate::forward::{ForwardArgs, Kind, Limits, Mode, Spec};
use crate::i18n::Locale;
use crate::model::Text;
use crate::observe::client::Connection;
use crate::statedir;

/// Where an administrator's units lie (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";
/// It is there where systemd is process 1 (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// What an environment may say about the way to the API server, and about this program.
const ENVIRONMENT: [&str; 10] = [
    "HOME",
    "KUBECONFIG",
    "BOOKACCESS_STATE_DIR",
    "BOOKACCESS_LOG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What stands in the way of a service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("systemd does not run here")]
    NoSystemd,
    #[error("only root installs a service")]
    NotRoot,
    #[error("a token given by flag is in no file, and a service would not have it")]
    Token,
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("systemctl {verb}: {message}")]
    Systemctl { verb: &'static str, message: String },
    /// It was started, and said why it cannot begin.
    #[error("{unit} does not start: {message}")]
    NotStarted { unit: String, message: String },
}

impl From<Error> for ExpectedError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSystemd => {
                Self::new(Exit::Usage, Text::new("error.unit.no_systemd")).hint(Text::new("error.unit.without_systemd"))
            }
            Error::NotRoot => Self::not_root(Text::new("error.unit.needs_root")),
            Error::Token => Self::new(Exit::Usage, Text::new("error.unit.token")),
            Error::File { path, source } => Self::state_not_writable(&path, &source.to_string()),
            Error::Systemctl { verb, message } => {
                Self::new(Exit::Problem, Text::new("error.unit.systemctl").with("verb", verb).with("message", message))
            }
            Error::NotStarted { unit, message } => Self::new(
                Exit::Problem,
                Text::new("error.unit.not_started").with("unit", &unit).with("message", message),
            )
            .hint(Text::new("error.unit.see_journal").with("unit", &unit)),
        }
    }
}

/// The unit's name. A rebuilt cluster has the same one.
pub fn name(spec: &Spec) -> String {
    let id = Spec { cluster: String::new(), ..spec.clone() }.id();
    format!("kubectl-bookaccess-{id}.service")
}

/// The words of the command line that give this order again. `spec` is what `args` came to: its target stays although
/// the words named none, and so does its context.
pub fn words(args: &ForwardArgs, spec: &Spec) -> Vec<String> {
    let mut words = vec!["forward".to_owned(), "service".to_owned()];
    let kind = match spec.kind {
        Kind::Service => "svc",
        Kind::Deployment => "deploy",
        Kind::Pod => "pod",
    };
    words.push(format!("{kind}/{}", spec.name));
    words.extend(args.pairs.iter().cloned());
    let mut flag = |name: &str, value: String| words.push(format!("--{name}={value}"));
    flag("namespace", spec.namespace.clone());
    if !args.addresses.is_empty() {
        flag("address", args.addresses.join(","));
    }
    match args.mode {
        Mode::Auto => {}
        Mode::Kernel => flag("mode", "kernel".to_owned()),
        Mode::Direct => flag("mode", "direct".to_owned()),
        Mode::Tunnel => flag("mode", "tunnel".to_owned()),
    }
    if !args.allow.is_empty() {
        flag("allow-cidr", args.allow.join(","));
    }
    let (limits, usual) = (args.limits, Limits::default());
    let mut limit = |name: &str, value: u64, usual: u64, unit: &str| {
        if value != usual {
            flag(name, format!("{value}{unit}"));
        }
    };
    limit("max-connections", limits.connections as u64, usual.connections as u64, "");
    limit("max-per-client", limits.per_client as u64, usual.per_client as u64, "");
    limit("pod-running-timeout", limits.patience_seconds, usual.patience_seconds, "s");
    limit("first-byte-timeout", limits.first_byte_seconds, usual.first_byte_seconds, "s");
    if args.proxy_protocol {
        flag("proxy-protocol", "v2".to_owned());
    }
    if let Some(metrics) = spec.metrics {
        flag("metrics", metrics.to_string());
    }
    match spec.locale {
        Locale::Ko => flag("lang", "ko".to_owned()),
        Locale::En => flag("lang", "en".to_owned()),
    }
    connect(&spec.connection, flag);
    for (name, is_set) in [
        ("front", args.front),
        ("no-wait-page", args.no_wait_page),
        ("insecure-skip-tls-verify", spec.connection.insecure_skip_tls_verify),
    ] {
        if is_set {
            words.push(format!("--{name}"));
        }
    }
    words
}

fn connect(connection: &Connection, mut flag: impl FnMut(&str, String)) {
    let texts = [
        ("context", &connection.context),
        ("cluster", &connection.cluster),
        ("user", &connection.user),
        ("server", &connection.server),
        ("as", &connection.as_user),
        ("tls-server-name", &connection.tls_server_name),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            flag(name, value.clone());
        }
    }
    for (name, path) in [
        ("kubeconfig", &connection.kubeconfig),
        ("certificate-authority", &connection.certificate_authority),
        ("client-certificate", &connection.client_certificate),
        ("client-key", &connection.client_key),
    ] {
        if let Some(path) = path {
            flag(name, path.display().to_string());
        }
    }
    for group in &connection.as_groups {
        flag("as-group", group.clone());
    }
    if let Some(limit) = connection.request_timeout {
        flag("request-timeout", format!("{}ms", limit.as_millis()));
    }
}

/// What a person types to have the service of an order that runs without one: the service takes over its sockets.
pub fn install_command(spec: &Spec, connection: &Connection) -> String {
    let mut words: Vec<String> = ["kubectl", "bookaccess", "forward", "start"].map(str::to_owned).to_vec();
    words.push(format!("svc/{}", spec.name));
    words.extend(spec.pairs.iter().map(|pair| format!("{}:{}", pair.listen, pair.port)));
    let addresses: Vec<String> = spec.addresses.iter().map(ToString::to_string).collect();
    words.extend(["-n".to_owned(), spec.namespace.clone(), "--address".to_owned(), addresses.join(",")]);
    connect(connection, |name, value| words.push(format!("--{name}={value}")));
    if connection.insecure_skip_tls_verify {
        words.push("--insecure-skip-tls-verify".to_owned());
    }
    words.push("--systemd".to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    let shell = |word: String| {
        if word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.into_iter().map(shell).collect::<Vec<_>>().join(" ")
}

/// What a unit says of its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    pub program: PathBuf,
    pub environment: Vec<(String, String)>,
    pub state: PathBuf,
}

impl Around {
    /// This process's own.
    ///
    /// # Errors
    /// Where this program's own path is unknown, or there is no folder for state.
    pub fn here() -> Result<Self, ExpectedError> {
        let program =
            std::env::current_exe().map_err(|source| super::Error::Spawn { program: "self".to_owned(), source })?;
        let environment = ENVIRONMENT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let state = statedir::own().ok_or(super::Error::Files(registry::Error::NoFolder))?;
        Ok(Self { program, environment: environment.filter(|(_, value)| !value.is_empty()).collect(), state })
    }
}

/// The unit's text. systemd 240 knows all of it; a later option would be a warning in the journal of an older one.
pub fn text(args: &ForwardArgs, spec: &Spec, around: &Around) -> String {
    let program = around.program.display().to_string();
    let words: Vec<String> = std::iter::once(program).chain(words(args, spec)).map(|w| quoted(&w, true)).collect();
    let environment: String = around
        .environment
        .iter()
        .map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}"), false)))
        .collect();
    let state = if around.state == Path::new(statedir::ROOT_STATE) {
        "StateDirectory=kubectl-bookaccess\nStateDirectoryMode=0755".to_owned()
    } else {
        format!("ReadWritePaths={}", quoted(&around.state.display().to_string(), false))
    };
    let connection = &spec.connection;
    let paths = [&connection.kubeconfig, &connection.certificate_authority, &connection.client_certificate];
    let paths = paths.into_iter().chain([&connection.client_key]).flatten().chain([&around.program, &around.state]);
    let is_temporary = |path: &PathBuf| path.starts_with("/tmp") || path.starts_with("/var/tmp");
    // What lies there would not be seen in a folder of the service's own.
    let private_tmp = if paths.into_iter().any(is_temporary) { "no" } else { "yes" };
    // A tunnelled or spliced connection has up to six descriptors.
    let descriptors = (spec.limits.connections.saturating_mul(6) + 4096).clamp(65_536, 1_048_576);
    // Public and private sockets, one for each data thread and address.
    let kept = spec.pairs.len().max(1) * spec.addresses.len().max(1) * 2 * crate::forward::worker::MOST;
    let (target, command, drain) = (spec.target().replace('%', "%%"), words.join(" "), DRAIN.as_secs() + 5);
    format!(
        "\
# Written by `kubectl bookaccess forward start --systemd`.
[Unit]
Description=kubectl bookaccess forward to {target}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=2s
TimeoutStartSec=60s
TimeoutStopSec={drain}s
WatchdogSec=15s
KillMode=mixed
FileDescriptorStoreMax={kept}
LimitNOFILE={descriptors}
{environment}{state}
# Rules, probes from a network namespace of their own, and a kubeconfig of another user's.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp={private_tmp}
PrivateDevices=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=net
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"
    )
}

/// One word of a unit file (systemd.syntax(7)): `%` begins a specifier, and in a command `$` a variable.
fn quoted(word: &str, is_command: bool) -> String {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            '%' => text.push_str("%%"),
            '$' if is_command => text.push_str("$$"),
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%$[]".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("\"{text}\"") }
}

/// Refuses what cannot be a service here, before anything is asked of the cluster.
///
/// # Errors
/// Without root, without systemd, or with a token.
pub fn admit(connection: &Connection) -> Result<(), Error> {
    keeps_no_token(connection)?;
    if !Path::new(BOOTED).exists() {
        return Err(Error::NoSystemd);
    }
    if statedir::is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

/// # Errors
/// With a token.
pub fn keeps_no_token(connection: &Connection) -> Result<(), Error> {
    if connection.token.is_some() { Err(Error::Token) } else { Ok(()) }
}

/// Installs the unit and starts it, now and at every boot. Returns when the forward serves. One that does not start is
/// taken away again.
///
/// # Errors
/// See [`Error`].
pub async fn install(args: &ForwardArgs, spec: &Spec) -> Result<(), ExpectedError> {
    let unit = name(spec);
    let path = Path::new(UNITS).join(&unit);
    let text = text(args, spec, &Around::here()?);
    std::fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    let started = async {
        systemctl("daemon-reload", &[]).await?;
        systemctl("enable", &[&unit]).await?;
        systemctl("restart", &[&unit]).await
    };
    if let Err(error) = started.await {
        let said = systemctl("show", &["--property=StatusText", "--value", &unit]).await.unwrap_or_default();
        remove(&unit).await?;
        let message = Some(said.trim().to_owned()).filter(|s| !s.is_empty()).unwrap_or_else(|| error.to_string());
        return Err(Error::NotStarted { unit, message }.into());
    }
    Ok(())
}

/// Stops a unit and takes it away.
///
/// # Errors
/// Of systemctl or the file; that it is gone already is none.
pub async fn remove(unit: &str) -> Result<(), Error> {
    let path = Path::new(UNITS).join(unit);
    if !path.exists() {
        return Ok(());
    }
    systemctl("disable", &["--now", unit]).await?;
    std::fs::remove_file(&path).map_err(|source| Error::File { path, source })?;
    systemctl("daemon-reload", &[]).await?;
    // Of a unit that failed a trace would stay.
    let _ = systemctl("reset-failed", &[unit]).await;
    Ok(())
}

/// Starts a unit anew; returns when the forward serves.
///
/// # Errors
/// Of systemctl.
pub async fn restart(unit: &str) -> Result<(), Error> {
    systemctl("restart", &[unit]).await.map(drop)
}

async fn systemctl(verb: &'static str, words: &[&str]) -> Result<String, Error> {
    let output = Command::new("systemctl").arg(verb).args(words).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| Error::Systemctl { verb, message: error.to_string() })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Systemctl { verb, message })
}

/// What a service carries out: the record of its order, written anew, and the sockets it had in its last life. What the
/// same unit left of a cluster that is no more is forgotten.
///
/// # Errors
/// Of the files.
pub fn prepare(spec: Spec) -> Result<(Files, Vec<Socket>), super::Error> {
    let kept = super::notify::kept();
    let unit = name(&spec);
    let files = Files::own(&spec.id())?;
    for old in registry::own()? {
        let is_ours = old.read_record().is_ok_and(|r| r.unit.as_deref() == Some(&unit));
        if is_ours && old.id() != files.id() && !old.is_alive() {
            old.remove();
        }
    }
    let record = super::Record {
        version: super::protocol::VERSION,
        spec,
        kubeconfig_env: std::env::var("KUBECONFIG").ok(),
        token: false,
        unit: Some(unit),
    };
    files.write_record(&record)?;
    Ok((files, kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Parsed, Verb, parse};
    use std::ffi::OsString;

    /// What a command line comes to, and the order that a cluster makes of it.
    fn order(line: &str) -> (ForwardArgs, Spec) {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let Ok(Parsed::Run(invocation)) = parse(&words, Locale::En) else { panic!("{line}") };
        let Verb::Forward(args) = invocation.verb else { panic!("{line}") };
        let globals = invocation.globals;
        let spec = Spec {
            pairs: args.pairs.iter().map(|p| p.parse().unwrap()).collect(),
            connection: globals.connection,
            limits: args.limits,
            metrics: args.metrics.as_deref().map(|m| crate::forward::spec::metrics(m).unwrap()),
            locale: Locale::En,
            cluster: "0123".to_owned(),
            ..Spec::new(Kind::Service, "bookinfo", "productpage")
        };
        (args, spec)
    }

    const ALL: &str = "kubectl-bookaccess forward start bookinfo/productpage 30080:http --address 10.0.0.1,10.0.0.2 \
        --mode tunnel --front --allow-cidr 10.0.0.0/8 --max-connections 7 --max-per-client 3 --first-byte-timeout 0 \
        --pod-running-timeout 5s --proxy-protocol v2 --no-wait-page --metrics 9100 --kubeconfig /root/.kube/config \
        --context a%b$c --server https://x:1 --as me --as-group g --as-group h --request-timeout 500ms -n bookinfo \
        --insecure-skip-tls-verify";

    #[test]
    fn the_words_of_a_unit_mean_the_same_order() {
        for line in [ALL, "kubectl-bookaccess forward start svc/productpage -n bookinfo"] {
            let (args, spec) = order(line);
            let again = format!("kubectl-bookaccess {}", words(&args, &spec).join(" "));
            let (mut read, same) = order(&again);
            assert_eq!(same, spec, "{again}");
            assert_eq!(read.target.as_deref(), Some("svc/productpage"));
            (read.verb, read.target, read.metrics) = (args.verb, args.target.clone(), args.metrics.clone());
            (read.addresses, read.allow) = (args.addresses.clone(), args.allow.clone());
            assert_eq!(read, args, "{again}");
        }
    }

    #[test]
    fn the_words_that_install_a_running_order_mean_that_order() {
        let spec = Spec {
            pairs: vec!["30080:http".parse().unwrap()],
            addresses: vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            ..Spec::new(Kind::Service, "bookinfo", "productpage")
        };
        let typed = Connection { context: Some("a b's".to_owned()), ..Connection::default() };
        assert_eq!(
            install_command(&spec, &typed),
            "kubectl bookaccess forward start svc/productpage 30080:http -n bookinfo --address 10.0.0.1,::1 \
             '--context=a b'\\''s' --systemd"
        );
        let line = install_command(&spec, &Connection::default());
        let (args, _) = order(&line.replacen("kubectl bookaccess", "kubectl-bookaccess", 1));
        assert!(args.systemd && args.verb == crate::forward::ForwardVerb::Start);
        assert_eq!((args.target.as_deref(), args.namespace.as_deref()), (Some("svc/productpage"), Some("bookinfo")));
        assert_eq!(
            (args.pairs, args.addresses),
            (vec!["30080:http".to_owned()], vec!["10.0.0.1".to_owned(), "::1".to_owned()])
        );
    }

    #[test]
    fn a_unit_is_named_the_same_in_a_rebuilt_cluster() {
        let (_, spec) = order(ALL);
        let rebuilt = Spec { cluster: "4567".to_owned(), ..spec.clone() };
        assert_ne!(rebuilt.id(), spec.id());
        assert_eq!(name(&spec), "kubectl-bookaccess-bookinfo-productpage-30080.service");
        assert_eq!(name(&rebuilt), name(&spec));
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("--address=10.0.0.1,::1", true), "--address=10.0.0.1,::1");
        assert_eq!(quoted("a%b$c", true), "a%%b$$c");
        assert_eq!(quoted("a%b$c", false), "a%%b$c");
        assert_eq!(quoted("a \"b\"\\", true), r#""a \"b\"\\""#);
        assert_eq!(quoted("", true), "\"\"");
        assert_eq!(quoted("a\n[Unit]", true), "\"a\\n[Unit]\"");
    }

    /// systemd's own judgement, where that program is.
    #[cfg(target_os = "linux")]
    #[test]
    fn systemd_takes_the_unit() {
        let (args, spec) = order(ALL);
        let around = Around {
            program: "/bin/sh".into(),
            environment: vec![("HOME".to_owned(), "/root with $pace".to_owned())],
            state: statedir::ROOT_STATE.into(),
        };
        let text = text(&args, &spec, &around);
        let command = text.lines().find(|l| l.starts_with("ExecStart=")).unwrap();
        assert!(command.starts_with("ExecStart=/bin/sh forward service svc/productpage 30080:http "), "{command}");
        assert!(command.contains(" --context=a%%b$$c "), "{command}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name(&spec));
        std::fs::write(&path, &text).unwrap();
        let verify = std::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
        let Ok(verdict) = verify else { return };
        let said = String::from_utf8_lossy(&verdict.stderr);
        let about_it: Vec<&str> = said.lines().filter(|l| l.contains("kubectl-bookaccess")).collect();
        assert_eq!(about_it, Vec::<&str>::new());
    }
}
