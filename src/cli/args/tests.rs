//! The command line as people type it: what it comes to, what help and refusals say, in both languages.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use super::*;
use crate::exit::Exit;
use crate::forward::{ForwardVerb, Mode};
use crate::i18n::say;

fn words(line: &str) -> Vec<OsString> {
    let mut words = vec![OsString::from("/usr/local/bin/kubectl-bookaccess")];
    words.extend(line.split_whitespace().map(OsString::from));
    words
}

fn run(line: &str) -> Invocation {
    match parse(&words(line), Locale::En) {
        Ok(Parsed::Run(invocation)) => *invocation,
        other => panic!("{line}: {other:?}"),
    }
}

/// What stands on the terminal after that line.
fn shown(line: &str, locale: Locale) -> String {
    match parse(&words(line), locale) {
        Ok(Parsed::Show(text)) => text,
        Ok(Parsed::Run(invocation)) => panic!("{line}: {invocation:?}"),
        Err(error) => {
            assert_eq!(error.exit, Exit::Usage, "{line}");
            let mut lines = vec![say(locale, &error.text)];
            lines.extend(error.hints.iter().map(|h| format!("  {}", say(locale, h))));
            lines.join("\n")
        }
    }
}

#[test]
fn the_tree_is_sound_in_both_languages() {
    for locale in [Locale::Ko, Locale::En] {
        tree::command(locale, "kubectl bookaccess".into()).debug_assert();
    }
}

#[test]
fn help_of_every_verb() {
    let lines = [
        "--help",
        "diagnose --help",
        "fix --help",
        "forward --help",
        "forward start --help",
        "forward stop -h",
        "forward restart -h",
        "forward status -h",
        "forward logs -h",
        "status --help",
        "explain -h",
        "version -h",
        "completion -h",
    ];
    for locale in [Locale::Ko, Locale::En] {
        let mut all = String::new();
        for line in lines {
            let text = shown(line, locale);
            for row in text.lines() {
                assert!(row.width() <= tree::WIDTH, "{} cells wide: {row}", row.width());
            }
            all.push_str(&format!("$ kubectl bookaccess {line}\n{text}\n"));
        }
        insta::assert_snapshot!(format!("help_{}", locale.tag()), all);
    }
}

#[test]
fn every_kind_of_refusal() {
    let lines = [
        "",
        "diagnoze",
        "launch",
        "diagnose --adress 203.0.113.10",
        "diagnose --frobnicate",
        "diagnose -x",
        "diagnose -o table",
        "diagnose -o",
        "diagnose --lang fr",
        "diagnose -v 11",
        "diagnose --request-timeout soon",
        "diagnose --from a.json --save b.json",
        "diagnose --from a.json --probe-pod",
        "fix --wait 60sec",
        "fix --allow system,sytem",
        "fix --dry-run --yes",
        "fix --undo --list",
        "fix --yes=maybe",
        "forward start --mode fast",
        "explain 1002",
        "explain BA1002 BA1003",
        "completion",
        "completion tcsh",
        "-n bookinfo",
    ];
    for locale in [Locale::Ko, Locale::En] {
        let all: String =
            lines.iter().map(|line| format!("$ kubectl bookaccess {line}\n{}\n\n", shown(line, locale))).collect();
        insta::assert_snapshot!(format!("refusals_{}", locale.tag()), all);
    }
}

#[test]
fn flags_mean_what_they_mean_in_kubectl_wherever_they_stand() {
    for line in [
        "-n bookinfo --context lab -s https://h:6443 --as me --as-group a --as-group b -v 6 diagnose productpage",
        "diagnose productpage -n bookinfo --context=lab --server=https://h:6443 --as=me --as-group=a --as-group=b -v=6",
        "diagnose -nbookinfo productpage --context lab -s=https://h:6443 --as me --as-group a --as-group b --v=6",
    ] {
        let Invocation { globals, verb } = run(line);
        assert_eq!(globals.connection.namespace.as_deref(), Some("bookinfo"), "{line}");
        assert_eq!(globals.connection.context.as_deref(), Some("lab"), "{line}");
        assert_eq!(globals.connection.server.as_deref(), Some("https://h:6443"), "{line}");
        assert_eq!(globals.connection.as_user.as_deref(), Some("me"), "{line}");
        assert_eq!(globals.connection.as_groups, ["a", "b"], "{line}");
        assert_eq!(globals.verbosity, 6, "{line}");
        assert_eq!(verb, Verb::Diagnose(DiagnoseArgs { targets: vec!["productpage".into()], ..Default::default() }));
    }
}

#[test]
fn defaults() {
    let Invocation { globals, verb } = run("fix");
    assert_eq!(globals, Globals { locale: Locale::En, imds: true, ..Default::default() });
    let nothing_granted = FixArgs {
        targets: vec![],
        job: FixJob::Repair,
        yes: false,
        wait: Duration::from_secs(60),
        allow: BTreeSet::new(),
        fallback: true,
        standby: true,
    };
    assert_eq!(verb, Verb::Fix(nothing_granted));
}

#[test]
fn fix_takes_its_job_and_its_grants() {
    let fix = |line: &str| match run(line).verb {
        Verb::Fix(args) => args,
        other => panic!("{other:?}"),
    };
    assert_eq!(fix("fix --dry-run").job, FixJob::DryRun);
    assert_eq!(fix("fix --undo").job, FixJob::Undo(None));
    assert_eq!(fix("fix --undo 20261123-1 -y").job, FixJob::Undo(Some("20261123-1".into())));
    assert_eq!(fix("fix --list").job, FixJob::List);
    let args = fix("fix grafana -y --allow system,node --allow policy --no-fallback --no-standby --wait 2m");
    assert_eq!(args.allow, BTreeSet::from([Allow::System, Allow::Node, Allow::Policy]));
    assert!(args.yes && !args.fallback && !args.standby);
    assert_eq!(args.wait, Duration::from_secs(120));
    assert_eq!(args.targets, ["grafana"]);
}

#[test]
fn the_address_belongs_to_the_page_except_in_forward() {
    assert_eq!(run("diagnose --address 203.0.113.10").globals.address.as_deref(), Some("203.0.113.10"));
    let Invocation { globals, verb } = run("forward start productpage 30080:http :9080 --address localhost,10.0.0.1");
    assert_eq!(globals.address, None);
    let Verb::Forward(forward) = verb else { panic!("{verb:?}") };
    assert_eq!(forward.verb, ForwardVerb::Start);
    assert_eq!(forward.target.as_deref(), Some("productpage"));
    assert_eq!(forward.pairs, ["30080:http", ":9080"]);
    assert_eq!(forward.addresses, ["localhost", "10.0.0.1"]);
}

#[test]
fn forward_knows_foreground_from_its_subcommands() {
    let forward = |line: &str| match run(line).verb {
        Verb::Forward(args) => args,
        other => panic!("{other:?}"),
    };
    let foreground = forward("forward svc/productpage 30080:http --mode direct --front");
    assert_eq!((foreground.verb, foreground.mode, foreground.front), (ForwardVerb::Foreground, Mode::Direct, true));
    assert_eq!(forward("forward").target, None);
    assert_eq!(forward("forward 30080:http").pairs, ["30080:http"]);
    assert_eq!(forward("forward 9080").target, None);
    let logs = forward("forward logs -f --raw --tail 20 productpage -n bookinfo");
    assert_eq!((logs.verb, logs.raw, logs.follow, logs.tail), (ForwardVerb::Logs, true, true, Some(20)));
    assert_eq!(logs.namespace.as_deref(), Some("bookinfo"));
    assert!(forward("forward stop --all").all);
    assert_eq!(run("forward-daemon /run/x.json").verb, Verb::ForwardDaemon(PathBuf::from("/run/x.json")));
}

#[test]
fn habits_are_understood() {
    for (habit, plain) in [("help", "--help"), ("help fix", "fix --help"), ("help forward start", "forward start -h")] {
        assert_eq!(shown(habit, Locale::Ko), shown(plain, Locale::Ko), "{habit}");
    }
    assert_eq!(run("--version").verb, Verb::Version);
    let twice = run("diagnose -n a -n b --as-group a --as-group b --context x --context y").globals.connection;
    assert_eq!((twice.namespace.as_deref(), twice.context.as_deref()), (Some("b"), Some("y")));
    assert_eq!(twice.as_groups, ["a", "b"]);
}

#[test]
fn no_limit_is_a_long_one_and_codes_are_read_in_any_case() {
    let timeout = |line: &str| run(line).globals.connection.request_timeout;
    assert_eq!(timeout("status"), None);
    assert_eq!(timeout("status --request-timeout 1m"), Some(Duration::from_secs(60)));
    assert!(timeout("status --request-timeout 0") > Some(Duration::from_secs(3600)));
    assert_eq!(run("explain ba1002").verb, Verb::Explain(Some(Code(1002))));
    assert_eq!(run("explain").verb, Verb::Explain(None));
}

#[test]
fn the_name_in_usage_is_the_one_that_was_typed() {
    for (file, name) in [
        ("/root/.krew/bin/kubectl-bookaccess", "kubectl bookaccess"),
        ("kubectl-bookaccess.exe", "kubectl bookaccess"),
        ("./bookaccess", "bookaccess"),
        ("", "kubectl bookaccess"),
    ] {
        assert_eq!(tree::bin_name(&[OsString::from(file)]), name);
    }
}
