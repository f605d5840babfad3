//! What each error says, in both languages, with its exit code.

use super::*;
use crate::cli::output::complaint;
use crate::forward::spec::SpecError;
use crate::i18n::Locale;
use crate::observe::client::Error as Client;
use crate::observe::targets::Error as Target;
use crate::observe::{file, look};

fn all() -> Vec<ExpectedError> {
    let s = str::to_owned;
    let server = || s("https://203.0.113.10:6443");
    vec![
        Client::Unknown { kind: "context", name: s("lap"), known: vec![s("lab"), s("prod")] }.into(),
        Client::Unknown { kind: "user", name: s("admin"), known: vec![] }.into(),
        Client::Unreachable { server: server(), message: s("Connection refused (os error 111)") }.into(),
        Client::Unreachable { server: server(), message: s("invalid peer certificate: UnknownIssuer") }.into(),
        Client::Unreachable { server: server(), message: s("invalid peer certificate: certificate expired") }.into(),
        Client::Unauthorized { server: server(), ended: None }.into(),
        Client::Unauthorized { server: server(), ended: "2026-11-22T12:00:00Z".parse().ok() }.into(),
        look::Error::Unauthorized.into(),
        Client::Kubeconfig(kube::config::KubeconfigError::ReadConfig(
            std::io::ErrorKind::NotFound.into(),
            "/home/dev/lab.conf".into(),
        ))
        .into(),
        Target::NoNamespace { name: s("bookinf"), nearest: Some(s("bookinfo")) }.into(),
        Target::NoService { namespace: s("bookinfo"), name: s("productpag"), nearest: Some(s("productpage")) }.into(),
        Target::Ambiguous { argument: s("web"), fits: vec![s("a/web"), s("b/web")] }.into(),
        Target::NotSelected { argument: s("deploy/worker") }.into(),
        Target::Malformed { argument: s("Svc!") }.into(),
        Target::NoDefault.into(),
        look::Error::Denied { verb: s("list"), resource: s("services"), namespace: s("bookinfo") }.into(),
        look::Error::Api { message: s("timed out") }.into(),
        forbidden::of_message(
            "services \"productpage\" is forbidden: User \"dev\" cannot patch resource \"services\" in API group \"\" in the namespace \"bookinfo\"",
        ),
        forbidden::of_message("pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": hostPort"),
        file::Error::Version { path: s("old.json"), found: 0 }.into(),
        file::Error::Another { path: s("a.txt") }.into(),
        file::Error::CutOff { path: s("a.json"), line: 7 }.into(),
        file::Error::Value { path: s("a.yaml"), line: 31, column: 34, message: s("invalid i32") }.into(),
        file::Error::TooLarge { path: s("a.json") }.into(),
        file::Error::Io { path: s("a.json"), source: std::io::ErrorKind::NotFound.into() }.into(),
        file::Error::Io { path: s("a.json"), source: std::io::ErrorKind::PermissionDenied.into() }.into(),
        file::Error::Io { path: s("/tmp"), source: std::io::ErrorKind::IsADirectory.into() }.into(),
        SpecError::Pair(s("30080:-1")).into(),
        SpecError::Address(s("node1")).into(),
        SpecError::Range(s("10.0.0.0/33")).into(),
        SpecError::Metrics(s("0.0.0.0:9100")).into(),
        ExpectedError::state_not_writable(Path::new("/var/lib/kubectl-bookaccess"), "Read-only file system"),
        ExpectedError::port_in_use(([127, 0, 0, 1], 30080).into(), Some("nginx")),
        ExpectedError::port_in_use(([127, 0, 0, 1], 30080).into(), None),
        ExpectedError::fix_in_progress("bookinfo/productpage", "root@cp-1"),
        ExpectedError::interrupted(),
    ]
}

#[test]
fn every_error_in_both_languages() {
    for locale in [Locale::Ko, Locale::En] {
        let said: Vec<String> =
            all().iter().map(|error| format!("{}exit {}\n", complaint(locale, error), error.exit as u8)).collect();
        insta::assert_snapshot!(format!("errors_{}", locale.tag()), said.join("\n"));
    }
}

#[test]
fn who_is_not_root_gets_the_line_that_is() {
    let args = ["/usr/local/bin/kubectl-bookaccess", "fix", "bookinfo/productpage", "--address", "http://a b/"];
    let line = sudo_line(&args.map(OsString::from));
    assert_eq!(line, "sudo env \"PATH=$PATH\" kubectl bookaccess fix bookinfo/productpage --address 'http://a b/'");
}
