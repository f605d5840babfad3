//! The binary itself, without a cluster: what a person gets who types something wrong, or whose cluster is not there.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare fails")]

mod bad_input;
mod binary;
mod fixtures;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use binary::{Bin, Ended};

/// What a dead API server may cost.
const DEAD: Duration = Duration::from_secs(5);

/// A kubeconfig that leads to this URL.
fn kubeconfig(folder: &Path, server: &str) -> String {
    let path = folder.join("config");
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "bookinfo"}}],
        "users": [{"name": "test", "user": {"token": "expired"}}],
    });
    std::fs::write(&path, text.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// One sentence for people, the right code, nothing on stdout, no trace of the program's inside.
fn refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert!(ended.stderr.starts_with("[오류] ") || ended.stderr.starts_with("[ERROR] "), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no `{word}` in {ended:?}");
    }
    for inside in ["panicked", "RUST_BACKTRACE", "Error {", "hyper", "%{", "error."] {
        assert!(!ended.stderr.contains(inside), "`{inside}` in {ended:?}");
    }
}

#[test]
fn a_wrong_command_line_is_one_sentence_and_code_2() {
    let bin = Bin::new();
    for (args, words) in [
        (&["diagnose", "--nope"][..], &["`--nope`"][..]),
        (&["diagnos"], &["`diagnos`", "diagnose"]),
        (&["diagnose", "-o", "xml"], &["`xml`", "text", "wide", "json", "yaml"]),
        (&["fix", "--allow", "all"], &["`all`", "system", "node", "policy", "workload"]),
        (&["fix", "--dry-run", "--undo"], &["--dry-run", "--undo"]),
        (&["fix", "--wait", "soon"], &["`soon`"]),
        (&["forward", "--mode", "fast"], &["`fast`", "auto", "kernel", "direct", "tunnel"]),
        (&["explain", "BA12"], &["`BA12`"]),
        (&["completion", "tcsh"], &["`tcsh`", "bash", "zsh", "fish"]),
        (&[], &["diagnose"]),
    ] {
        let ended = bin.run(args);
        refused(&ended, 2, words);
        assert!(ended.took < Duration::from_secs(2), "{ended:?}");
    }
}

#[test]
fn without_a_kubeconfig_the_places_looked_at_are_named() {
    // As root these stand in for a kubeconfig, so on such a machine there is one.
    let fallbacks = ["/etc/kubernetes/admin.conf", "/etc/rancher/k3s/k3s.yaml", "/etc/rancher/rke2/rke2.yaml"];
    if fallbacks.iter().any(|path| Path::new(path).exists()) {
        return;
    }
    for verb in ["diagnose", "fix"] {
        refused(&Bin::new().run(&[verb]), 2, &["--kubeconfig", "KUBECONFIG", fallbacks[0]]);
    }
}

#[test]
fn a_wrong_kubeconfig_is_named_with_what_is_wrong() {
    let bin = Bin::new();
    let missing = bin.home().join("missing").to_str().unwrap().to_owned();
    refused(&bin.run(&["diagnose", "--kubeconfig", &missing]), 2, &[&missing]);
    let config = kubeconfig(bin.home(), "http://127.0.0.1:1");
    refused(&bin.run(&["diagnose", "--kubeconfig", &config, "--context", "tset"]), 2, &["`tset`"]);
    std::fs::write(&config, "clusters: [").unwrap();
    refused(&bin.run(&["diagnose", "--kubeconfig", &config]), 2, &["kubeconfig"]);
}

#[test]
fn a_dead_api_server_is_code_4_within_5_seconds() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Takes the connection, then never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = |address: SocketAddr, scheme: &str, args: &[&str]| {
        let bin = Bin::new();
        let config = kubeconfig(bin.home(), &format!("{scheme}://{address}"));
        let ended = bin.run(&[args, &["--kubeconfig", &config]].concat());
        refused(&ended, 4, &[&address.to_string()]);
        assert!(ended.took <= DEAD, "{ended:?}");
    };
    for address in [closed, silent.local_addr().unwrap()] {
        for scheme in ["http", "https"] {
            std::thread::scope(|scope| {
                scope.spawn(|| dead(address, scheme, &["diagnose"]));
                scope.spawn(|| dead(address, scheme, &["fix", "--yes"]));
            });
        }
    }
}

#[test]
fn an_expired_token_is_code_3_and_names_the_server() {
    let server = server::Answering::refusing(401, "Unauthorized");
    let bin = Bin::new();
    let config = kubeconfig(bin.home(), &server.url());
    for args in [&["diagnose"][..], &["fix", "--yes"]] {
        refused(&bin.run(&[args, &["--kubeconfig", &config]].concat()), 3, &["401", "BA0201", &server.address()]);
    }
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[test]
fn a_denied_right_is_code_3_and_names_what_was_denied() {
    let server = server::Answering::refusing(403, "Forbidden");
    let bin = Bin::new();
    let config = kubeconfig(bin.home(), &server.url());
    for args in [&["diagnose", "productpage"][..], &["fix", "--yes", "productpage"]] {
        let ended = bin.run(&[args, &["--kubeconfig", &config]].concat());
        refused(&ended, 3, &["services", "bookinfo", "BA0202"]);
    }
    assert_eq!(server.writes(), Vec::<String>::new());
}

/// The page's Service.
fn productpage() -> (&'static str, serde_json::Value) {
    let service = serde_json::json!({
        "metadata": {"name": "productpage", "namespace": "bookinfo", "uid": "u1"},
        "spec": {"type": "NodePort", "selector": {"app": "productpage"},
            "ports": [{"port": 9080, "targetPort": 9080, "nodePort": 30080}]},
    });
    ("/api/v1/services", service)
}

#[test]
fn what_is_known_to_be_refused_is_not_tried() {
    let node = ("/api/v1/nodes", serde_json::json!({"metadata": {"name": "w1"}}));
    for (resources, tries) in [(&["*"][..], 1), (&["services", "nodes"], 0)] {
        let rules = serde_json::json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": resources}]);
        let server = server::Answering::permitting(rules, vec![productpage(), node.clone()]);
        let bin = Bin::new();
        let config = kubeconfig(bin.home(), &server.url());
        let ended = bin.run(&["diagnose", "--address", "127.0.0.1:1", "productpage", "--kubeconfig", &config]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(server.asked("/nodes/w1:"), tries, "{ended:?}");
        assert_eq!(ended.stdout.contains("nodes/proxy"), tries == 0, "{ended:?}");
    }
}

#[test]
fn fix_reads_the_objects_once() {
    let server = server::Answering::listing(vec![productpage()]);
    let bin = Bin::new();
    let config = kubeconfig(bin.home(), &server.url());
    // Nobody listens on port 1, and nothing can be repaired where there is no pod.
    let args = ["fix", "--yes", "--address", "127.0.0.1:1", "productpage", "--kubeconfig", &config];
    let ended = bin.run(&args);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(server.reads("/api/v1/namespaces/bookinfo/pods"), 1, "{ended:?}");
    assert_eq!(server.writes(), Vec::<String>::new());
}

#[test]
fn a_long_list_is_read_in_pages_and_whole_where_its_state_is_forgotten() {
    let service = |name: String| {
        serde_json::json!({"metadata": {"name": name, "namespace": "bookinfo", "uid": "u1"}, "spec": {"type": "ClusterIP",
            "selector": {"app": "productpage"}, "ports": [{"port": 9080}]}})
    };
    let names = (0..1200).map(|n| format!("page-{n}")).chain(["productpage".to_owned()]);
    let services: Vec<_> = names.map(|name| ("/api/v1/services", service(name))).collect();
    for (forgets, reads) in [(false, 3), (true, 3)] {
        let server = server::Answering::paging(services.clone(), forgets);
        let bin = Bin::new();
        let config = kubeconfig(bin.home(), &server.url());
        let ended = bin.run(&["diagnose", "productpage", "--kubeconfig", &config]);
        assert!(ended.stdout.contains("BA1002"), "{ended:?}");
        // To choose the target, and to look at it.
        assert_eq!(server.reads("/api/v1/services"), 2 * reads, "{ended:?}");
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    for args in [&["explain"][..], &["--help"], &["explain", "BA1002"], &["version"]] {
        let ended = Bin::new().run_into_closed_pipe(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn the_language_is_korean_unless_the_locale_names_another() {
    let spoken = |env: &[(&str, &str)], args: &[&str]| {
        let ended = env.iter().fold(Bin::new(), |bin, (name, value)| bin.env(name, value)).run(args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        if ended.stderr.starts_with("[오류]") { "ko" } else { "en" }
    };
    let wrong = &["diagnose", "--nope"][..];
    for (env, args, want) in [
        (&[][..], wrong, "ko"),
        (&[("LANG", "C.UTF-8")], wrong, "ko"),
        (&[("LANG", "C")], wrong, "ko"),
        (&[("LANG", "POSIX")], wrong, "ko"),
        (&[("LANG", "")], wrong, "ko"),
        (&[("LANG", "ko_KR.UTF-8")], wrong, "ko"),
        (&[("LANG", "en_US.UTF-8")], wrong, "en"),
        (&[("LANG", "de_DE.UTF-8")], wrong, "en"),
        (&[("LANG", "en_US.UTF-8"), ("LC_ALL", "ko_KR.UTF-8")], wrong, "ko"),
        (&[("LANG", "en_US.UTF-8"), ("BOOKACCESS_LANG", "ko")], wrong, "ko"),
        (&[("LANG", "ko_KR.UTF-8"), ("BOOKACCESS_LANG", "en")], wrong, "en"),
        (&[("BOOKACCESS_LANG", "ko")], &["diagnose", "--lang", "en", "--nope"], "en"),
        (&[("BOOKACCESS_LANG", "en")], &["diagnose", "--nope", "--lang=ko"], "ko"),
    ] {
        assert_eq!(spoken(env, args), want, "{env:?} {args:?}");
    }
}

#[test]
fn help_and_the_catalogue_need_no_cluster() {
    let bin = Bin::new();
    for args in
        [&["--help"][..], &["diagnose", "--help"], &["fix", "-h"], &["explain"], &["explain", "ba1002"], &["version"]]
    {
        let ended = bin.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(!ended.stdout.trim().is_empty(), "{args:?}");
        assert!(ended.stdout.ends_with('\n'), "{args:?}");
    }
    assert!(bin.run(&["explain", "BA1002"]).stdout.contains("BA1002"));
    let script = bin.run(&["completion", "bash"]);
    assert!(script.code == Some(0) && script.stdout.contains("bookaccess"), "{script:?}");
}

#[test]
fn nothing_is_left_where_nothing_was_asked() {
    let bin = Bin::new();
    let config = kubeconfig(bin.home(), "http://127.0.0.1:1");
    bin.run(&["diagnose", "--kubeconfig", &config]);
    bin.run(&["explain"]);
    let left: Vec<_> = std::fs::read_dir(bin.home()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["config"], "diagnose writes nothing");
}
