//! The tree of verbs and flags, in clap's builder, with every text from the locale files.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, value_parser};

use super::columns;
use crate::i18n::{Locale, say};
use crate::model::Text;

/// Columns of help: fixed, so that it reads the same everywhere and in tests.
pub const WIDTH: usize = 80;

/// Flags that connect to the cluster; every help but the first one only points to them.
const CONNECTION: [(&str, &str, &str); 13] = [
    ("cluster", "NAME", "cli.flag.cluster"),
    ("user", "NAME", "cli.flag.user"),
    ("server", "URL", "cli.flag.server"),
    ("token", "TOKEN", "cli.flag.token"),
    ("as", "USER", "cli.flag.as"),
    ("as-group", "GROUP", "cli.flag.as_group"),
    ("certificate-authority", "FILE", "cli.flag.certificate_authority"),
    ("client-certificate", "FILE", "cli.flag.client_certificate"),
    ("client-key", "FILE", "cli.flag.client_key"),
    ("tls-server-name", "NAME", "cli.flag.tls_server_name"),
    ("insecure-skip-tls-verify", "", "cli.flag.insecure_skip_tls_verify"),
    ("request-timeout", "TIME", "cli.flag.request_timeout"),
    ("v", "LEVEL", "cli.flag.v"),
];

/// As the user calls it: `kubectl bookaccess` where kubectl found it on PATH by its name.
pub fn bin_name(args: &[OsString]) -> String {
    let file = args.first().and_then(|a| Path::new(a).file_stem()).map(|f| f.to_string_lossy().into_owned());
    match file {
        Some(name) if !name.starts_with("kubectl-") && !name.is_empty() => name,
        _ => "kubectl bookaccess".to_owned(),
    }
}

/// Builds the tree in one language.
struct Tree {
    locale: Locale,
    bin: String,
}

/// The whole command.
pub fn command(locale: Locale, bin: String) -> Command {
    let tree = Tree { locale, bin };
    let mut root = Command::new("kubectl-bookaccess")
        .bin_name(tree.bin.clone())
        .about(tree.say("cli.about"))
        .override_usage(format!("{} COMMAND [TARGET...] [flags]", tree.bin))
        .help_template(tree.template())
        .subcommand_help_heading(tree.say("cli.heading.commands"))
        .next_help_heading(tree.say("cli.heading.common"))
        .subcommand_required(true)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .args(tree.common(true))
        .args(tree.connection(true))
        .arg(tree.help_flag().global(true))
        .subcommands([tree.diagnose(), tree.fix(), tree.forward(), tree.status()])
        .subcommands([tree.explain(), tree.version(), tree.completion(), tree.forward_daemon()]);
    let after =
        format!("{}\n{}\n{}", tree.heading("cli.heading.connection"), tree.connection_help(), tree.say("cli.after"));
    root = root.after_help(after);
    columns::set(root)
}

impl Tree {
    fn say(&self, key: &'static str) -> String {
        say(self.locale, &Text::new(key)).trim_end().to_owned()
    }

    fn heading(&self, key: &'static str) -> String {
        format!("{}:", self.say(key))
    }

    fn template(&self) -> String {
        format!("{{about-with-newline}}\n{}: {{usage}}\n\n{{all-args}}{{after-help}}", self.say("cli.heading.usage"))
    }

    /// `-o`, `-n` and the like: shown in every help.
    fn common(&self, global: bool) -> Vec<Arg> {
        let args = [
            self.value("namespace", "NAME", "cli.flag.namespace").short('n'),
            self.switch("all-namespaces", "cli.flag.all_namespaces").short('A'),
            self.value("kubeconfig", "FILE", "cli.flag.kubeconfig").value_parser(value_parser!(std::path::PathBuf)),
            self.value("context", "NAME", "cli.flag.context"),
            self.choice("output", "FORMAT", "cli.flag.output", &["text", "wide", "json", "yaml"]).short('o'),
            self.choice("lang", "LANG", "cli.flag.lang", &["ko", "en"]),
            self.choice("color", "WHEN", "cli.flag.color", &["auto", "always", "never"]),
        ];
        args.into_iter().map(|a| a.global(global)).collect()
    }

    fn connection(&self, hidden: bool) -> Vec<Arg> {
        let arg = |(name, value_name, key): (&'static str, &'static str, &'static str)| {
            let arg = match (name, value_name) {
                (_, "") => self.switch(name, key),
                (_, "FILE") => self.value(name, value_name, key).value_parser(value_parser!(std::path::PathBuf)),
                ("server", _) => self.value(name, value_name, key).short('s'),
                ("as-group", _) => self.value(name, value_name, key).action(ArgAction::Append),
                ("v", _) => self.value(name, value_name, key).short('v').value_parser(value_parser!(u8).range(0..=9)),
                _ => self.value(name, value_name, key),
            };
            arg.global(hidden).hide(hidden)
        };
        CONNECTION.into_iter().map(arg).collect()
    }

    /// The connection flags as a block of help, for the first help only.
    fn connection_help(&self) -> String {
        let flags =
            Command::new("flags").disable_help_flag(true).help_template("{options}").args(self.connection(false));
        columns::set(flags).render_help().to_string()
    }

    fn verb(&self, name: &'static str, about: &'static str, usage: &str) -> Command {
        Command::new(name)
            .about(self.say(about))
            .override_usage(format!("{} {usage}", self.bin))
            .help_template(self.template())
            .next_help_heading(self.say("cli.heading.flags"))
            .subcommand_help_heading(self.say("cli.heading.commands"))
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .disable_version_flag(true)
            .args_override_self(true)
    }

    fn after(&self, examples: &'static str) -> String {
        format!("{}\n\n{}", self.say(examples), self.say("cli.more_flags"))
    }

    fn diagnose(&self) -> Command {
        self.verb("diagnose", "cli.diagnose.about", "diagnose [TARGET...] [flags]")
            .arg(self.targets())
            .arg(self.address())
            .arg(self.no_imds())
            .arg(self.value("save", "FILE", "cli.flag.save").value_parser(value_parser!(std::path::PathBuf)))
            .arg(
                self.value("from", "FILE", "cli.flag.from")
                    .value_parser(value_parser!(std::path::PathBuf))
                    .conflicts_with_all(["save", "target"]),
            )
            .arg(self.switch("probe-pod", "cli.flag.probe_pod").conflicts_with("from"))
            .after_help(self.after("cli.diagnose.examples"))
    }

    fn fix(&self) -> Command {
        let allow = self
            .choice("allow", "TIER", "cli.flag.allow", &["system", "node", "policy", "workload"])
            .action(ArgAction::Append)
            .value_delimiter(',');
        self.verb("fix", "cli.fix.about", "fix [TARGET...] [flags]")
            .arg(self.targets())
            .arg(self.switch("dry-run", "cli.flag.dry_run").conflicts_with_all(["undo", "list", "yes"]))
            .arg(self.switch("yes", "cli.flag.yes").short('y'))
            .arg(self.value("undo", "ID", "cli.flag.undo").num_args(0..=1).conflicts_with("list"))
            .arg(self.switch("list", "cli.flag.list"))
            .arg(self.value("wait", "TIME", "cli.flag.wait"))
            .arg(allow)
            .arg(self.switch("no-fallback", "cli.flag.no_fallback"))
            .arg(self.switch("no-standby", "cli.flag.no_standby"))
            .arg(self.address())
            .arg(self.no_imds())
            .after_help(self.after("cli.fix.examples"))
    }

    fn forward(&self) -> Command {
        let options = |command: Command| {
            command
                .arg(
                    self.value("address", "ADDRESS", "cli.flag.forward_address")
                        .action(ArgAction::Append)
                        .value_delimiter(','),
                )
                .arg(self.choice("mode", "MODE", "cli.flag.mode", &["auto", "kernel", "direct", "tunnel"]))
                .arg(self.switch("front", "cli.flag.front"))
                .arg(
                    self.value("allow-cidr", "CIDR", "cli.flag.allow_cidr")
                        .action(ArgAction::Append)
                        .value_delimiter(','),
                )
                .arg(self.value("max-connections", "N", "cli.flag.max_connections").value_parser(count()))
                .arg(self.value("max-per-client", "N", "cli.flag.max_per_client").value_parser(count()))
                .arg(self.value("pod-running-timeout", "TIME", "cli.flag.pod_running_timeout"))
                .arg(self.value("first-byte-timeout", "TIME", "cli.flag.first_byte_timeout"))
                .arg(self.choice("proxy-protocol", "VERSION", "cli.flag.proxy_protocol", &["v2"]))
                .arg(self.switch("no-wait-page", "cli.flag.no_wait_page"))
                .arg(self.value("metrics", "IP:PORT", "cli.flag.metrics"))
        };
        let start = options(
            self.verb("start", "cli.forward.start", "forward start [TARGET] [[LOCAL:]REMOTE...] [flags]")
                .args([self.target(), self.pairs()]),
        )
        .arg(self.switch("systemd", "cli.flag.systemd"))
        .arg(self.switch("print-unit", "cli.flag.print_unit").conflicts_with("systemd"));
        let service = options(
            self.verb("service", "cli.forward.start", "forward service [TARGET] [[LOCAL:]REMOTE...] [flags]")
                .args([self.target(), self.pairs()]),
        );
        let one = |name, about, usage| {
            self.verb(name, about, usage).arg(self.target()).after_help(self.say("cli.more_flags"))
        };
        let forward = self.verb("forward", "cli.forward.about", "forward [TARGET] [[LOCAL:]REMOTE...] [flags]");
        options(forward.args([self.target(), self.pairs()]))
            .args_conflicts_with_subcommands(true)
            .subcommand(start.after_help(self.after("cli.forward.start_examples")))
            .subcommand(service.hide(true))
            .subcommand(
                one("stop", "cli.forward.stop", "forward stop [TARGET] [flags]")
                    .arg(self.switch("all", "cli.flag.all")),
            )
            .subcommand(one("restart", "cli.forward.restart", "forward restart [TARGET] [flags]"))
            .subcommand(one("status", "cli.forward.status", "forward status [TARGET] [flags]"))
            .subcommand(
                one("logs", "cli.forward.logs", "forward logs [TARGET] [flags]")
                    .arg(self.switch("raw", "cli.flag.raw"))
                    .arg(self.value("tail", "N", "cli.flag.tail").value_parser(value_parser!(usize)))
                    .arg(self.switch("follow", "cli.flag.follow").short('f')),
            )
            .after_help(self.after("cli.forward.examples"))
    }

    fn status(&self) -> Command {
        self.verb("status", "cli.status.about", "status [TARGET...] [flags]")
            .arg(self.targets())
            .arg(self.switch("watch", "cli.flag.watch").short('w'))
            .arg(self.address())
            .arg(self.no_imds())
            .after_help(self.after("cli.status.examples"))
    }

    fn explain(&self) -> Command {
        self.verb("explain", "cli.explain.about", "explain [CODE]")
            .arg(
                Arg::new("code")
                    .value_name("CODE")
                    .help(self.say("cli.arg.code"))
                    .help_heading(self.say("cli.heading.arguments")),
            )
            .after_help(self.after("cli.explain.examples"))
    }

    fn version(&self) -> Command {
        self.verb("version", "cli.version.about", "version [flags]").after_help(self.say("cli.more_flags"))
    }

    fn completion(&self) -> Command {
        let shells = PossibleValuesParser::new(["bash", "zsh", "fish", "powershell", "elvish"]);
        self.verb("completion", "cli.completion.about", "completion SHELL")
            .arg(
                Arg::new("shell")
                    .value_name("SHELL")
                    .help(self.say("cli.arg.shell"))
                    .help_heading(self.say("cli.heading.arguments"))
                    .required(true)
                    .hide_possible_values(true)
                    .value_parser(shells),
            )
            .after_help(self.after("cli.completion.examples"))
    }

    fn forward_daemon(&self) -> Command {
        Command::new("forward-daemon")
            .hide(true)
            .disable_help_flag(true)
            .arg(Arg::new("record").required(true).value_parser(value_parser!(std::path::PathBuf)))
    }

    fn help_flag(&self) -> Arg {
        Arg::new("help")
            .long("help")
            .short('h')
            .action(ArgAction::HelpShort)
            .help(self.say("cli.flag.help"))
            .help_heading(self.say("cli.heading.common"))
    }

    fn targets(&self) -> Arg {
        self.target().num_args(0..).help(self.say("cli.arg.targets"))
    }

    fn target(&self) -> Arg {
        Arg::new("target")
            .value_name("TARGET")
            .display_order(0)
            .help(self.say("cli.arg.target"))
            .help_heading(self.say("cli.heading.arguments"))
    }

    fn pairs(&self) -> Arg {
        Arg::new("ports")
            .value_name("[LOCAL:]REMOTE")
            .num_args(0..)
            .display_order(1)
            .help(self.say("cli.arg.ports"))
            .help_heading(self.say("cli.heading.arguments"))
    }

    fn address(&self) -> Arg {
        self.value("address", "ADDRESS", "cli.flag.address")
    }

    fn no_imds(&self) -> Arg {
        self.switch("no-imds", "cli.flag.no_imds")
    }

    fn value(&self, name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
        Arg::new(name).long(name).value_name(value_name).help(self.say(help)).hide_default_value(true)
    }

    fn choice(&self, name: &'static str, value_name: &'static str, help: &'static str, values: &[&'static str]) -> Arg {
        self.value(name, value_name, help)
            .value_parser(PossibleValuesParser::new(values.iter().copied()))
            .hide_possible_values(true)
    }

    fn switch(&self, name: &'static str, help: &'static str) -> Arg {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(self.say(help))
    }
}

/// A number of connections: one at least, and no more than a process has descriptors for.
fn count() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=1_000_000)
}
