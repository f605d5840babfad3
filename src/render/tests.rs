//! What each kind of output looks like, in both languages, and that documents keep to their schema.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::json::{Access, Document, FixedTarget, SCHEMA, StepOutcome};
use super::schema_tests::keeps;
use super::status::{Carried, Carrier, Row};
use super::view::TargetView;
use super::width::{WIDTH, cells};
use super::*;
use crate::apply::list::{Listed, State, Where};
use crate::check::Hop;
use crate::check::path::{HopState, PathHop};
use crate::exit::Exit;
use crate::i18n::Locale;
use crate::model::{
    Act, ActionName, Allow, Change, Code, Confidence, Evidence, Finding, Gap, GapReason, Input, NodePortRule,
    ObjectRef, Outcome, Plan, Probe, Severity, Step, Text, Tier, Vantage, Verify, Withheld,
};

const TARGET: &str = "bookinfo/productpage";
const FORWARD: &str = "bookinfo-productpage-30080-3f9c";
const KEEP: &str =
    "kubectl bookaccess forward start svc/productpage 30080:http -n bookinfo --address 192.168.0.10 --systemd";
const URL: &str = "http://203.0.113.10:30080/productpage";

fn service() -> ObjectRef {
    ObjectRef::namespaced("Service", "bookinfo", "productpage")
}

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn path(broken: Option<Hop>, pod: &str) -> Vec<PathHop> {
    let hops = [
        (Hop::Client, ""),
        (Hop::Edge, "203.0.113.10:30080"),
        (Hop::Node, "cp-1"),
        (Hop::Service, TARGET),
        (Hop::Pod, pod),
    ];
    let state = |hop| match broken {
        Some(broken) if hop == broken => HopState::Broken,
        Some(broken) if hop > broken => HopState::Unknown,
        _ => HopState::Ok,
    };
    hops.iter().map(|(hop, label)| PathHop { hop: *hop, label: (*label).to_owned(), state: state(*hop) }).collect()
}

fn target(broken: Option<Hop>, reachable: Option<bool>) -> TargetView {
    TargetView {
        target: TARGET.to_owned(),
        url: Some(URL.to_owned()),
        port: Some(30080),
        reachable,
        path: path(broken, "productpage-v1-7d9f8b6c5-x2k4p:9080"),
    }
}

fn probe(vantage: Vantage, outcome: Outcome) -> Evidence {
    Evidence::Probe {
        probe: Probe {
            vantage,
            target: Some(TARGET.to_owned()),
            host: "203.0.113.10".to_owned(),
            port: 30080,
            node: Some("cp-1".to_owned()),
            pod: None,
            outcome,
            millis: 3,
        },
    }
}

fn finding(code: u16, slug: &str, severity: Severity, confidence: Confidence, evidence: Vec<Evidence>) -> Finding {
    Finding {
        code: Code(code),
        slug: slug.to_owned(),
        severity,
        confidence,
        target: TARGET.to_owned(),
        subject: service(),
        args: args(&[
            ("service", "productpage"),
            ("namespace", "bookinfo"),
            ("port", "30080"),
            ("address", "203.0.113.10"),
            ("node", "cp-1"),
            ("nodes", "worker-1"),
            ("pod", "productpage-v1"),
        ]),
        evidence,
        remedies: vec![ActionName::ServiceNodePort],
    }
}

fn cluster_ip() -> Finding {
    let evidence = vec![
        Evidence::Field { object: service(), path: "spec.type".into(), value: json!("ClusterIP") },
        probe(Vantage::Client, Outcome::Refused),
    ];
    finding(1002, "cluster-ip", Severity::Error, Confidence::Certain, evidence)
}

fn step(name: ActionName, tier: Tier, act: Act, pairs: &[(&str, &str)], command: &str, undo: &str) -> Step {
    Step {
        name,
        tier,
        target: TARGET.to_owned(),
        cause: Code(1002),
        act,
        verify: Verify::Cleared,
        args: args(pairs),
        command: command.to_owned(),
        undo: undo.to_owned(),
    }
}

fn node_port() -> Step {
    let changes = vec![
        Change { path: "/spec/type".into(), from: Some(json!("ClusterIP")), to: Some(json!("NodePort")) },
        Change { path: "/spec/ports/0/nodePort".into(), from: None, to: Some(json!(30080)) },
    ];
    step(
        ActionName::ServiceNodePort,
        Tier::T2,
        Act::Patch { object: service(), uid: "5d1c".into(), changes },
        &[("service", "productpage"), ("port", "30080"), ("from", "ClusterIP")],
        r#"kubectl -n bookinfo patch service productpage --type=json -p '[{"op":"replace","path":"/spec/type","value":"NodePort"}]'"#,
        r#"kubectl -n bookinfo patch service productpage --type=json -p '[{"op":"replace","path":"/spec/type","value":"ClusterIP"}]'"#,
    )
}

fn plan() -> Plan {
    let forward = step(
        ActionName::OpenForward,
        Tier::T1,
        Act::Forward {
            namespace: "bookinfo".into(),
            service: "productpage".into(),
            listen_port: 30080,
            listen_address: [10, 0, 0, 10].into(),
            front: true,
            around: false,
            tunnel: false,
        },
        &[("service", "productpage"), ("address", "10.0.0.10:30080")],
        "kubectl bookaccess forward start bookinfo/productpage 30080:http --address 10.0.0.10",
        "kubectl bookaccess forward stop bookinfo/productpage",
    );
    let restart = step(
        ActionName::ScheduleKubeProxy,
        Tier::T4,
        Act::Patch {
            object: ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy"),
            uid: "1".into(),
            changes: vec![],
        },
        &[("nodes", "cp-1")],
        "kubectl -n kube-system patch daemonset kube-proxy …",
        "kubectl -n kube-system patch daemonset kube-proxy …",
    );
    let told = step(
        ActionName::OpenSecurityGroup,
        Tier::T6,
        Act::Tell,
        &[("port", "30080"), ("address", "203.0.113.10")],
        "",
        "",
    );
    Plan {
        steps: vec![forward, node_port(), told],
        withheld: vec![Withheld { step: restart, needs: Some(Allow::System), why: Text::new("plan.withheld.system") }],
        notes: vec![Text::new("plan.note.owned").with("object", "service/productpage").with("owner", "Helm")],
    }
}

fn gaps() -> Vec<Gap> {
    vec![
        Gap { input: Input::OutsiderProbe, subject: None, reason: GapReason::NotOnNode },
        Gap { input: Input::Rules, subject: None, reason: GapReason::NotRoot },
        Gap {
            input: Input::NodeProxy,
            subject: Some("cp-1".into()),
            reason: GapReason::Denied { verb: "get".into(), resource: "nodes/proxy".into() },
        },
    ]
}

fn broken() -> Diagnosis {
    Diagnosis {
        targets: vec![target(Some(Hop::Service), Some(false))],
        findings: vec![cluster_ip()],
        plan: Plan { steps: vec![node_port()], ..Plan::default() },
        skipped: vec![],
        gaps: vec![],
        on_node: true,
    }
}

fn dropped() -> Diagnosis {
    let evidence = vec![
        probe(Vantage::Client, Outcome::Timeout),
        probe(Vantage::NodeProxy, Outcome::Http { status: 200, right: true }),
        Evidence::Rule {
            node: "cp-1".into(),
            rule: NodePortRule { port: 30080, backends: vec!["10.244.1.7:9080".parse().unwrap()], rejects: false },
        },
    ];
    let skipped = |code, input, reason| crate::check::Skipped { code: Code(code), input, reason };
    Diagnosis {
        targets: vec![target(Some(Hop::Edge), Some(false))],
        findings: vec![finding(6001, "dropped-on-the-way", Severity::Error, Confidence::Likely, evidence)],
        plan: Plan::default(),
        skipped: vec![skipped(3019, Input::Rules, GapReason::NotRoot)],
        gaps: gaps(),
        on_node: false,
    }
}

/// One of each kind.
fn evidence_of_every_kind() -> Vec<Evidence> {
    let pod = || ObjectRef::namespaced("Pod", "bookinfo", "productpage-v1-x");
    let node = || ObjectRef::cluster("Node", "cp-1");
    let mut all = vec![
        Evidence::Field { object: service(), path: "spec.selector".into(), value: json!({"app": "productpag"}) },
        Evidence::Field { object: service(), path: "spec.ports[0].nodePort".into(), value: Value::Null },
        Evidence::Rule { node: "cp-1".into(), rule: NodePortRule { port: 30080, backends: vec![], rejects: true } },
        Evidence::NoRule { node: "cp-1".into(), port: 30080 },
        Evidence::Absent { object: service() },
        Evidence::Container {
            object: pod(),
            container: "productpage".into(),
            reason: "CrashLoopBackOff".into(),
            message: "back-off 5m0s restarting failed container\nsecond line".into(),
        },
        Evidence::Condition {
            object: node(),
            condition: "Ready".into(),
            status: "False".into(),
            message: String::new(),
        },
        Evidence::Count { object: service(), what: "ready".into(), have: 0, want: 2 },
        Evidence::Log { object: pod(), line: "Error: listen EADDRINUSE".into() },
        Evidence::NoRouteTo { node: "cp-1".into(), cidr: "10.244.1.0/24".into() },
    ];
    for outcome in [
        Outcome::Http { status: 404, right: false },
        Outcome::Connected,
        Outcome::Silent,
        Outcome::NoRoute,
        Outcome::NetworkUnreachable,
        Outcome::Reset,
        Outcome::Empty,
        Outcome::NotHttp,
        Outcome::Tls,
        Outcome::Forbidden,
        Outcome::Other { message: "too many open files".into() },
    ] {
        all.push(probe(Vantage::Outsider, outcome));
    }
    for vantage in [Vantage::PodProxy, Vantage::PortForward, Vantage::NodeToPod] {
        all.push(probe(vantage, Outcome::Timeout));
    }
    all
}

fn now() -> jiff::Timestamp {
    "2026-11-23T09:00:00Z".parse().unwrap()
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            target: TARGET.into(),
            url: Some(URL.into()),
            path: Carried::Forward(Carrier::Direct),
            healthy_since: Some("2026-11-23T08:57:48Z".parse().unwrap()),
            connections: Some(12),
            forward: Some("bookinfo-productpage-30080-3f9c".into()),
            tunnel_protocol: None,
            last_error: Some("10.244.1.7:9080: 연결 거부".into()),
        },
        Row {
            target: "bookinfo/reviews".into(),
            url: None,
            path: Carried::Forward(Carrier::Tunnel),
            healthy_since: None,
            connections: Some(3),
            forward: Some("bookinfo-reviews-30090-3f9c".into()),
            tunnel_protocol: Some("spdy-in-websocket"),
            last_error: None,
        },
        Row {
            target: "monitoring/grafana".into(),
            url: None,
            path: Carried::Nothing,
            healthy_since: None,
            connections: None,
            forward: None,
            tunnel_protocol: None,
            last_error: None,
        },
    ]
}

fn fixes() -> Vec<Listed> {
    let fix = |id: &str, state, place| Listed {
        id: id.into(),
        at: Some("2026-11-23T05:30:00Z".parse().unwrap()),
        targets: vec![TARGET.into()],
        causes: vec![Code(1002)],
        steps: vec![ActionName::OpenForward, ActionName::ServiceNodePort],
        state,
        place,
        torn: 0,
    };
    vec![
        fix("20261123-053000-a1", State::Active, Where::Here),
        fix("20261123-043000-b2", State::Undone, Where::Elsewhere { host: "laptop".into() }),
        Listed {
            at: None,
            steps: vec![],
            ..fix("20261122-101112-c3", State::Failed, Where::OtherCluster { cluster: "7c".into() })
        },
    ]
}

fn events() -> Vec<Event> {
    let s = str::to_owned;
    let of = 3;
    vec![
        Event::Looking { targets: s(TARGET) },
        Event::Waiting {
            object: ObjectRef::namespaced("Deployment", "bookinfo", "productpage-v1"),
            limit: Duration::from_secs(60),
        },
        Event::Found { finding: cluster_ip() },
        Event::NothingToDo { target: s(TARGET) },
        Event::StepStarted { number: 1, of, step: node_port() },
        Event::StepVerified { number: 1, of, took: Duration::from_millis(1234) },
        Event::StepWithoutEffect { number: 2, of },
        Event::StepFailed { number: 2, of, reason: Text::new("error.api").with("code", 500).with("message", "etcd") },
        Event::Reverted { number: 2, of },
        Event::RevertFailed {
            number: 2,
            of,
            step: node_port(),
            reason: Text::new("error.api").with("code", 500).with("message", "etcd"),
        },
        Event::Withheld { withheld: plan().withheld.remove(0) },
        Event::Finishing,
        Event::Reachable { target: s(TARGET), url: s(URL) },
        Event::ReachableByForward { target: s(TARGET), url: s(URL) },
        Event::ReachableHereOnly { target: s(TARGET), url: s("http://localhost:30080/productpage") },
        Event::Unreachable { target: s(TARGET) },
        Event::Standby { id: s(FORWARD), reboot: Reboot::Ends { keep: Some(s(KEEP)) } },
        Event::Standby { id: s(FORWARD), reboot: Reboot::Outlived },
        Event::Carrying { id: s(FORWARD), reboot: Reboot::Ends { keep: Some(s(KEEP)) } },
        Event::Carrying { id: s(FORWARD), reboot: Reboot::Ends { keep: None } },
        Event::AnswersHere { port: 30080 },
        Event::UndoWith { id: s("20261123-053000-a1") },
        Event::Undoing { id: s("20261123-053000-a1"), steps: 2 },
        Event::UndoMayBreak { target: s(TARGET) },
        Event::Undone { step: node_port() },
        Event::UndoRefused { step: node_port(), reason: Text::new("error.refused").with("message", "x") },
        Event::JournalCutOff { id: s("20261123-053000-a1") },
    ]
}

fn style(locale: Locale) -> Style {
    Style { locale, color: false, wide: false }
}

fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Prose keeps within 80 cells; lines that are copied, a command or a URL, stay whole.
fn assert_narrow(text: &str) {
    for line in text.lines() {
        let start = line.trim_start();
        let labels = ["실행:", "되돌리기:", "run:", "undo:", "kubectl ", "sudo "];
        let copied = labels.iter().any(|label| start.starts_with(label)) || start.contains("http://");
        assert!(copied || cells(line) <= WIDTH, "{} cells: {line}", cells(line));
    }
}

#[test]
fn diagnoses() {
    for locale in [Locale::Ko, Locale::En] {
        let healthy = Diagnosis { targets: vec![target(None, Some(true))], on_node: true, ..Diagnosis::default() };
        let wide = Style { wide: true, ..style(locale) };
        let every = Diagnosis {
            findings: vec![finding(1002, "x", Severity::Warning, Confidence::Possible, evidence_of_every_kind())],
            ..broken()
        };
        let all = [
            (style(locale), broken()),
            (style(locale), dropped()),
            (wide, dropped()),
            (style(locale), healthy),
            (style(locale), every),
        ];
        let said: Vec<String> =
            all.iter().map(|(style, view)| text(|out| diagnosis::write(style, view, out))).collect();
        said.iter().for_each(|said| assert_narrow(said));
        insta::assert_snapshot!(format!("diagnoses_{}", locale.tag()), said.join("\n=====\n"));
    }
}

/// Every fixture of the catalogue, planned with every grant.
fn gallery(locale: Locale) -> Vec<(String, String)> {
    let testdata = concat!(env!("CARGO_MANIFEST_DIR"), "/src/check/testdata");
    let mut fixtures: Vec<_> = std::fs::read_dir(testdata).unwrap().map(|e| e.unwrap().path()).collect();
    fixtures.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    fixtures.sort();
    let policy = crate::plan::Policy {
        allow: [Allow::Node, Allow::Policy, Allow::System, Allow::Workload].into(),
        fallback: true,
        ..Default::default()
    };
    let show = |path: std::path::PathBuf| {
        let snapshot: crate::model::Snapshot =
            serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let facts = crate::facts::Facts::derive(&snapshot);
        let report = crate::check::run(&facts);
        let plan = crate::plan::plan(&facts, &report.findings, &policy);
        let view = Diagnosis::of(&facts, &report, plan.clone());
        let style = Style { wide: true, ..style(locale) };
        let mut said = text(|out| diagnosis::write(&style, &view, out));
        said.push_str(&text(|out| plan::write(&style, &plan, out)));
        let steps = plan.steps.iter().chain(plan.withheld.iter().map(|w| &w.step));
        said.extend(steps.map(|step| width::wrap("", &plan::undoes(&style, step), WIDTH).join("\n") + "\n"));
        (path.file_stem().unwrap().to_string_lossy().into_owned(), said)
    };
    fixtures.into_iter().map(show).collect()
}

#[test]
fn every_fixture_is_said_in_whole_sentences() {
    for locale in [Locale::Ko, Locale::En] {
        for (name, said) in gallery(locale) {
            assert_narrow(&said);
            for leftover in ["%{", "check.BA", "action.", "plan.withheld", "render."] {
                assert!(!said.contains(leftover), "{name}: {leftover}\n{said}");
            }
            if locale == Locale::En {
                assert!(!said.chars().any(|c| ('가'..='힣').contains(&c)), "{name}\n{said}");
            }
        }
    }
}

#[test]
fn plans() {
    for locale in [Locale::Ko, Locale::En] {
        let said = text(|out| plan::write(&style(locale), &plan(), out));
        assert_narrow(&said);
        let empty = text(|out| plan::write(&style(locale), &Plan::default(), out));
        insta::assert_snapshot!(format!("plan_{}", locale.tag()), format!("{said}=====\n{empty}"));
    }
}

#[test]
fn every_event() {
    for locale in [Locale::Ko, Locale::En] {
        let style = style(locale);
        let lines: Vec<String> = events().iter().flat_map(|event| event.lines(&style)).collect();
        let said = lines.join("\n");
        assert_narrow(&said);
        insta::assert_snapshot!(format!("events_{}", locale.tag()), said);
    }
}

#[test]
fn tables() {
    let said = |wide| {
        let style = Style { wide, ..style(Locale::Ko) };
        text(|out| status::write(&style, &rows(), now(), out))
    };
    let list = text(|out| fixes::write(&style(Locale::Ko), &fixes(), now(), out));
    let none = text(|out| fixes::write(&style(Locale::Ko), &[], now(), out));
    insta::assert_snapshot!("tables", [said(false), said(true), list, none].join("=====\n"));
}

#[test]
fn ages_read_as_kubectls() {
    for (seconds, expected) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (3600, "60m"),
        (11_520, "3h12m"),
        (86_400, "24h"),
        (187_200, "2d4h"),
        (864_000, "10d"),
    ] {
        let since = now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(status::age(since, now()), expected);
    }
    let later = now().checked_add(jiff::SignedDuration::from_secs(5)).unwrap();
    assert_eq!(status::age(later, now()), "0s", "a clock that was set back shows no negative age");
}

#[test]
fn colour_changes_no_letter() {
    let plain = text(|out| diagnosis::write(&style(Locale::Ko), &dropped(), out));
    let coloured = text(|out| diagnosis::write(&Style { color: true, ..style(Locale::Ko) }, &dropped(), out));
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn documents() {
    let every = Diagnosis {
        findings: vec![finding(1002, "x", Severity::Info, Confidence::Possible, evidence_of_every_kind())],
        ..dropped()
    };
    let plan = plan();
    let steps = [(node_port(), StepOutcome::Verified), (plan.steps[0].clone(), StepOutcome::Reverted)];
    let fixed = [FixedTarget { target: TARGET.into(), url: Some(URL.into()), access: Access::Restored, standby: None }];
    let (rows, fixes, broken) = (rows(), fixes(), Diagnosis { plan: plan.clone(), ..broken() });
    let documents = [
        Document::diagnosis(&broken, Exit::Problem),
        Document::diagnosis(&every, Exit::Problem),
        Document::plan(&plan, Exit::Ok),
        Document::fix(Some("20261123-053000-a1"), &fixed, &steps, &plan.withheld, Exit::Ok),
        Document::fix(None, &fixed, &[], &[], Exit::Ok),
        Document::fixes(&fixes, Exit::Ok),
        Document::status(&rows, Exit::Problem),
    ];
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for document in &documents {
        let written = text(|out| document.write_json(out));
        let value: Value = serde_json::from_str(&written).unwrap();
        if let Err(why) = keeps(&schema, &schema, &value) {
            panic!("{why}\n{written}");
        }
        let yaml = text(|out| document.write_yaml(out));
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), value, "{yaml}");
        assert!(!written.chars().any(|c| ('가'..='힣').contains(&c)) || written.contains("연결 거부"), "{written}");
    }
    insta::assert_snapshot!("documents", documents.iter().map(|d| text(|out| d.write_json(out))).collect::<String>());
}
