//! All checks on all fixtures: what each fixture expects, what the findings are in full, and what holds for every input.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

use bookaccess::check::{self, ABOUT_THE_LOOK, CATALOGUE};
use bookaccess::facts::Facts;
use bookaccess::i18n::{Locale, say};
use bookaccess::model::{Finding, Gap, GapReason, Input, Snapshot, Text, Vantage};
use proptest::prelude::*;

const TESTDATA: &str = "src/check/testdata";

struct Fixture {
    stem: String,
    text: String,
    snapshot: Snapshot,
    tree: serde_json::Value,
    claims: Vec<Finding>,
    found: Vec<Finding>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All fixtures by name, read once.
fn fixtures() -> &'static [Fixture] {
    static FIXTURES: LazyLock<Vec<Fixture>> = LazyLock::new(read);
    &FIXTURES
}

fn read() -> Vec<Fixture> {
    let mut found: Vec<Fixture> = std::fs::read_dir(root().join(TESTDATA))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let snapshot: Snapshot =
                serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let tree = serde_json::to_value(&snapshot).unwrap();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let (claims, found) = (claims(&snapshot), findings(&snapshot));
            Fixture { stem, text, snapshot, tree, claims, found }
        })
        .collect();
    found.sort_by(|a, b| a.stem.cmp(&b.stem));
    found
}

fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    check::run(&Facts::derive(snapshot)).findings
}

/// `BA1002 error certain bookinfo/productpage`
fn line(finding: &Finding) -> String {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let severity = word(serde_json::to_value(finding.severity).unwrap());
    let confidence = word(serde_json::to_value(finding.confidence).unwrap());
    format!("{} {severity} {confidence} {}", finding.code, finding.target)
}

#[test]
fn each_fixture_gives_what_it_says_it_expects() {
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let expected: Vec<&str> = fixture.text.lines().filter_map(|l| l.strip_prefix("# expect: ")).collect();
        assert!(!expected.is_empty(), "{}: no `# expect:` line", fixture.stem);
        let expected: Vec<&str> = expected.into_iter().filter(|e| *e != "nothing").collect();
        let found: Vec<String> = fixture.found.iter().map(line).collect();
        if found != expected {
            wrong.push(format!("{}: expected {expected:?}, found {found:?}", fixture.stem));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn findings_in_full() {
    for fixture in fixtures() {
        let found = &fixture.found;
        if found.is_empty() {
            continue;
        }
        insta::with_settings!({snapshot_path => root().join(TESTDATA), prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_yaml_snapshot!(fixture.stem.clone(), found);
        });
    }
}

#[test]
fn a_healthy_cluster_yields_nothing() {
    let healthy: Vec<&Fixture> = fixtures().iter().filter(|f| f.stem.starts_with("healthy")).collect();
    assert!(healthy.len() >= 4);
    for fixture in healthy {
        assert_eq!(fixture.found, [], "{}", fixture.stem);
    }
}

#[test]
fn file_code_slug_texts_and_fixture_agree() {
    let stems = |folder: &str, extension: &str| -> BTreeSet<String> {
        std::fs::read_dir(root().join(folder))
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == extension))
            .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let expected: BTreeSet<String> = CATALOGUE
        .iter()
        .map(|c| format!("{}_{}", c.code.to_string().to_lowercase(), c.slug.replace('-', "_")))
        .collect();
    assert_eq!(stems("src/check/checks", "rs"), expected, "run `cargo xtask codegen`");
    let codes: BTreeSet<String> = CATALOGUE.iter().map(|c| c.code.to_string().to_lowercase()).collect();
    assert_eq!(stems("locales/checks", "yml"), codes);
    let fixtures = stems(TESTDATA, "yaml");
    let missing: Vec<&String> = codes.iter().filter(|c| !fixtures.contains(*c)).collect();
    assert!(missing.is_empty(), "no fixture for {missing:?}");
}

#[test]
fn every_code_is_the_leading_finding_of_its_fixture() {
    for fixture in fixtures() {
        if CATALOGUE.iter().any(|c| c.code.to_string().to_lowercase() == fixture.stem) {
            let first = fixture.found.first().map(|f| f.code.to_string().to_lowercase());
            assert_eq!(first.as_deref(), Some(fixture.stem.as_str()));
        }
    }
}

#[test]
fn texts_are_there_in_both_languages_and_use_only_the_finding_s_arguments() {
    for fixture in fixtures() {
        for finding in &fixture.found {
            for part in ["title", "why", "fix"] {
                let mut text = Text::new(format!("check.{}.{part}", finding.code));
                for (name, value) in &finding.args {
                    text = text.with(name.clone(), value);
                }
                let both = [Locale::Ko, Locale::En].map(|locale| say(locale, &text));
                assert_ne!(both[0], both[1], "{part} of {}", finding.code);
                for said in both {
                    assert!(!said.contains("%{") && !said.starts_with("check."), "{}: {said}", fixture.stem);
                    assert!(part != "title" || !said.contains('\n'), "{}: {said}", finding.code);
                }
            }
        }
    }
}

#[test]
fn checks_claim_no_more_than_the_catalogue() {
    for fixture in fixtures() {
        for finding in &fixture.found {
            let check = check::find(finding.code).unwrap();
            assert!(finding.severity <= check.severity && finding.confidence <= check.confidence, "{}", finding.code);
            assert!(finding.remedies.iter().all(|r| check.remedies.contains(r)), "{}", finding.code);
            assert!(!finding.evidence.is_empty(), "{}: a claim without evidence", finding.code);
        }
    }
}

const INPUTS: [Input; 26] = [
    Input::Services,
    Input::EndpointSlices,
    Input::Pods,
    Input::Deployments,
    Input::Nodes,
    Input::Namespaces,
    Input::Events,
    Input::PodLogs,
    Input::NetworkPolicies,
    Input::KubeProxy,
    Input::Leases,
    Input::Endpoints,
    Input::ApiServer,
    Input::ClientProbe,
    Input::OutsiderProbe,
    Input::PodProxy,
    Input::NodeProxy,
    Input::PortForward,
    Input::Rules,
    Input::NodeSettings,
    Input::Firewall,
    Input::Answering,
    Input::HttpProxy,
    Input::Kubelet,
    Input::ProbePod,
    Input::OtherPolicies,
];

/// The snapshot as it would be had this input been denied.
fn deny(snapshot: &mut Snapshot, input: Input) {
    let objects = &mut snapshot.objects;
    let mut blind = |vantage: Vantage| snapshot.probes.retain(|p| p.vantage != vantage);
    match input {
        Input::Services => objects.services.clear(),
        Input::EndpointSlices => objects.endpoint_slices.clear(),
        Input::Pods => objects.pods.clear(),
        Input::Deployments => objects.deployments.clear(),
        Input::Nodes => objects.nodes.clear(),
        Input::Namespaces => objects.namespaces.clear(),
        Input::Events => objects.events.clear(),
        Input::PodLogs => objects.crash_logs.clear(),
        Input::NetworkPolicies => objects.network_policies.clear(),
        Input::KubeProxy => {
            objects.daemon_sets.clear();
            objects.kube_proxy_pods.clear();
            objects.kube_proxy_config = None;
            objects.kube_proxy_logs.clear();
            objects.cilium_config = None;
        }
        Input::Leases => objects.leases.clear(),
        Input::Endpoints => objects.endpoints.clear(),
        Input::ApiServer => objects.api_server_pods.clear(),
        Input::ClientProbe => blind(Vantage::Client),
        Input::OutsiderProbe => blind(Vantage::Outsider),
        Input::PodProxy => blind(Vantage::PodProxy),
        Input::NodeProxy => blind(Vantage::NodeProxy),
        Input::PortForward => blind(Vantage::PortForward),
        Input::Answering => snapshot.answering = None,
        Input::HttpProxy => blind(Vantage::HttpProxy),
        Input::Kubelet => blind(Vantage::Kubelet),
        Input::ProbePod => blind(Vantage::ProbePod),
        Input::OtherPolicies => objects.other_policies.clear(),
        Input::Rules => {
            if let Some(host) = &mut snapshot.host {
                host.rules = None;
                host.other_rules = None;
            }
        }
        Input::NodeSettings => {
            if let Some(host) = &mut snapshot.host {
                host.unrouted_pod_cidrs.clear();
                host.sysctls.clear();
                host.listeners.clear();
                host.proxy_health = None;
                host.routes.clear();
                host.devices.clear();
                host.rule_tables.clear();
                host.reverse_path_drops = None;
            }
        }
        Input::Firewall => {
            if let Some(host) = &mut snapshot.host {
                host.firewall = None;
            }
        }
    }
    let reason = GapReason::Denied { verb: "get".to_owned(), resource: "anything".to_owned() };
    snapshot.gaps.push(Gap { input, subject: None, reason });
}

/// Every claim, before consequences are folded into their causes.
fn claims(snapshot: &Snapshot) -> Vec<Finding> {
    check::runner::claims(&Facts::derive(snapshot))
}

fn children(value: &serde_json::Value) -> Vec<&serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map.values().collect(),
        serde_json::Value::Array(list) => list.iter().collect(),
        _ => Vec::new(),
    }
}

/// How many values there are below this one.
fn count(value: &serde_json::Value) -> usize {
    children(value).into_iter().map(|child| 1 + count(child)).sum()
}

/// Removes the nth of the values below this one, in the order of the text.
fn remove(tree: &mut serde_json::Value, mut nth: usize) {
    let found = children(tree).into_iter().map(|child| 1 + count(child)).position(|size| {
        let here = nth < size;
        nth -= if here { 0 } else { size };
        here
    });
    let Some(at) = found else { return };
    match tree {
        serde_json::Value::Object(map) => {
            let key = map.keys().nth(at).unwrap().clone();
            match nth {
                0 => drop(map.remove(&key)),
                _ => remove(&mut map[&key], nth - 1),
            }
        }
        serde_json::Value::Array(list) if nth == 0 => drop(list.remove(at)),
        serde_json::Value::Array(list) => remove(&mut list[at], nth - 1),
        _ => {}
    }
}

#[test]
fn every_value_of_a_tree_can_be_removed() {
    let tree = serde_json::json!({"a": [1, {"b": 2}], "c": 3});
    let left: Vec<String> = (0..count(&tree))
        .map(|nth| {
            let mut cut = tree.clone();
            remove(&mut cut, nth);
            cut.to_string()
        })
        .collect();
    let without = [r#"{"c":3}"#, r#"{"a":[{"b":2}],"c":3}"#, r#"{"a":[1],"c":3}"#, r#"{"a":[1,{}],"c":3}"#];
    assert_eq!(left, [without.as_slice(), &[r#"{"a":[1,{"b":2}]}"#]].concat());
}

/// A deterministic shuffle of one list.
fn turn<T>(list: &mut [T], by: usize) {
    let length = list.len().max(1);
    list.rotate_left(by % length);
    if by % 2 == 1 {
        list.reverse();
    }
}

#[test]
fn any_single_gap_finds_no_more() {
    for fixture in fixtures() {
        for input in INPUTS {
            let mut snapshot = fixture.snapshot.clone();
            deny(&mut snapshot, input);
            no_more(&fixture.claims, &claims(&snapshot), &format!("{} without {input:?}", fixture.stem));
        }
    }
}

fn no_more(before: &[Finding], after: &[Finding], what: &str) {
    for claim in after.iter().filter(|c| !ABOUT_THE_LOOK.contains(&c.code)) {
        let known = before.iter().find(|f| f.code == claim.code && f.target == claim.target);
        let known = known.unwrap_or_else(|| panic!("{what}: {} appears", line(claim)));
        assert!(
            // To be surer of something smaller is no stronger claim.
            (claim.severity, claim.confidence) <= (known.severity, known.confidence),
            "{what}: {} was {}",
            line(claim),
            line(known)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gaps_find_no_more(inputs in proptest::sample::subsequence(INPUTS.to_vec(), 0..INPUTS.len())) {
        for fixture in fixtures() {
                let mut snapshot = fixture.snapshot.clone();
            for input in &inputs {
                deny(&mut snapshot, *input);
            }
            no_more(&fixture.claims, &claims(&snapshot), &format!("{} without {inputs:?}", fixture.stem));
        }
    }

    /// What an API server or a hand-edited file may leave out, no check may stumble over.
    #[test]
    fn whatever_is_missing_nothing_panics(cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 1..6)) {
        for fixture in fixtures() {
            let mut tree = fixture.tree.clone();
            for cut in &cuts {
                let nth = cut.index(count(&tree));
                remove(&mut tree, nth);
            }
            if let Ok(snapshot) = serde_json::from_value::<Snapshot>(tree) {
                let facts = Facts::derive(&snapshot);
                let found = check::run(&facts).findings;
                for target in &facts.targets {
                    check::path::path(&facts, target, &found);
                }
            }
        }
    }

    #[test]
    fn the_order_of_lists_does_not_matter(by in proptest::collection::vec(0usize..64, 15)) {
        for fixture in fixtures() {
            let mut snapshot = fixture.snapshot.clone();
            let objects = &mut snapshot.objects;
            turn(&mut objects.services, by[0]);
            turn(&mut objects.endpoint_slices, by[1]);
            turn(&mut objects.pods, by[2]);
            turn(&mut objects.deployments, by[3]);
            turn(&mut objects.nodes, by[4]);
            turn(&mut objects.events, by[5]);
            turn(&mut objects.daemon_sets, by[6]);
            turn(&mut objects.network_policies, by[6]);
            turn(&mut objects.kube_proxy_pods, by[7]);
            for slice in &mut objects.endpoint_slices {
                turn(&mut slice.endpoints, by[8]);
            }
            turn(&mut snapshot.probes, by[9]);
            turn(&mut snapshot.addresses, by[10]);
            turn(&mut snapshot.gaps, by[11]);
            turn(&mut snapshot.objects.leases, by[12]);
            turn(&mut snapshot.objects.endpoints, by[13]);
            turn(&mut snapshot.objects.api_server_pods, by[14]);
            turn(&mut snapshot.objects.replica_sets, by[14]);
            prop_assert_eq!(&findings(&snapshot), &fixture.found, "{}", fixture.stem);
        }
    }
}

#[test]
fn nothing_at_all_is_no_fault_but_a_missing_service() {
    let mut snapshot = fixtures().iter().find(|f| f.stem == "healthy_kubeadm").unwrap().snapshot.clone();
    snapshot.objects = Default::default();
    snapshot.probes.clear();
    snapshot.host = None;
    let said: Vec<String> = findings(&snapshot).iter().map(line).collect();
    assert_eq!(said, ["BA1001 error certain bookinfo/productpage"]);
}
