//! The pure modules stay pure, the cluster is written to in one place, and one file speaks to people's languages.

use crate::source::{self, Source};

/// Functions of their arguments and nothing else.
const PURE: [&str; 15] = [
    "src/model",
    "src/facts",
    "src/check",
    "src/plan",
    "src/render",
    "src/forward/affinity.rs",
    "src/forward/endpoints.rs",
    "src/forward/balancer.rs",
    "src/forward/jhash.rs",
    "src/forward/slots.rs",
    "src/forward/front/reason.rs",
    "src/forward/front/rules.rs",
    "src/forward/front/trust.rs",
    "src/supervise/state.rs",
    "src/supervise/protocol.rs",
];

/// Paths that pure code must not name: their whole content is I/O, time, chance, logs or language.
const IMPURE: [&str; 24] = [
    "kube::Client",
    "kube::Api",
    "kube::api",
    "kube::client",
    "kube::runtime",
    "tokio",
    "futures",
    "tracing",
    "rust_i18n",
    "rand",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os::unix::net",
    "std::time::SystemTime",
    "rustix",
];

/// Words that pure code must not hold, whatever path led to them.
const IMPURE_WORDS: [&str; 6] =
    ["async fn", "async move", "async {", "Instant::now", "SystemTime::now", "Timestamp::now"];

/// Every writing call of kube's `Api` takes one of these, and every other way to write names its HTTP verb.
const WRITES: [&str; 14] = [
    "PostParams",
    "PatchParams",
    "DeleteParams",
    "EvictParams",
    "Request::post(",
    "Request::put(",
    "Request::patch(",
    "Request::delete(",
    "Method::POST",
    "Method::PUT",
    "Method::PATCH",
    "Method::DELETE",
    ".delete_collection(",
    ".evict(",
];

/// `rust_i18n` may be named in these, in the last only to load the texts.
const LANGUAGE: [&str; 3] = ["src/i18n.rs", "src/i18n", "src/lib.rs"];
/// Where bytes leave the program: for people, and from the background process to the one that started it.
const WRITING: [&str; 2] = ["src/cli/output.rs", "src/supervise/daemon.rs"];
/// How they would.
const OUTLETS: [&str; 8] = [
    "print!(",
    "println!(",
    "eprint!(",
    "eprintln!(",
    "stdout().lock(",
    "stderr().lock(",
    "stdout().write",
    "stderr().write",
];

/// The paths that the `use` declarations of blanked code bring in, groups taken apart, with their offsets.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let begins = |at: usize| at == 0 || code[..at].ends_with(|c: char| c.is_whitespace() || c == '{' || c == '}');
    for (at, _) in code.match_indices("use ").filter(|(at, _)| begins(*at)) {
        let tree = &code[at + 4..];
        let tree: String = tree.split(';').next().unwrap_or_default().split_whitespace().collect();
        let mut paths = Vec::new();
        take_apart("", &tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (at, path)));
    }
    found
}

/// `a::{b, c::{d, self}}` gives `a::b`, `a::c::d` and `a::c`.
fn take_apart(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let path = format!("{prefix}{}", tree.trim_end_matches("::self"));
        paths.push(path.trim_end_matches("::").to_owned());
        return;
    };
    let group = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from) = (0, 0);
    let prefix = format!("{prefix}{head}");
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                match &group[from..at] {
                    "" => {}
                    "self" => paths.push(prefix.trim_end_matches("::").to_owned()),
                    part => take_apart(&prefix, part, paths),
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// Offsets where a path, or something below it, stands in blanked code.
fn mentions<'c>(code: &'c str, path: &'c str) -> impl Iterator<Item = usize> + 'c {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = &code[at + path.len()..];
        // A crate's name alone may be a variable; followed by `::` or `!` it is the crate.
        let is_path = path.contains("::") && !after.starts_with(word) || after.starts_with("::");
        is_path && !before.is_some_and(|c| word(c) || c == ':' || c == '.')
    })
}

/// What impure things a pure file names.
fn impurities(source: &Source) -> Vec<String> {
    let code = source.product_code();
    let imports = imports(&code);
    let mut found = Vec::new();
    for path in IMPURE {
        let below = format!("{path}::");
        let of_import = imports.iter().filter(|(_, import)| {
            let import = import.split("as ").next().unwrap_or_default();
            import == path || import.starts_with(&below)
        });
        let places: Vec<usize> = of_import.map(|(at, _)| *at).chain(mentions(&code, path)).collect();
        found.extend(places.first().map(|at| format!("{} names {path}", source.place(*at))));
    }
    for word in IMPURE_WORDS {
        found.extend(code.find(word).map(|at| format!("{} holds `{word}`", source.place(at))));
    }
    found
}

/// Where a file holds one of these words in its code.
fn holds(source: &Source, words: &[&str]) -> Vec<String> {
    let code = source.product_code();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for needle in words {
        let mut places = code
            .match_indices(needle)
            .filter(|(at, _)| needle.starts_with('.') || !code[..*at].chars().next_back().is_some_and(word));
        found.extend(places.next().map(|(at, _)| format!("{} holds `{needle}`", source.place(at))));
    }
    found
}

#[test]
fn pure_modules_are_pure() {
    let files = source::files("src", &[".rs"]);
    let pure: Vec<_> = files.iter().filter(|f| f.is_in(&PURE)).collect();
    for place in PURE {
        assert!(pure.iter().any(|f| f.is_in(&[place])), "{place} is called pure, but is not there");
    }
    crate::none_of(pure.into_iter().flat_map(impurities));
}

#[test]
fn only_apply_writes_to_the_cluster() {
    let files = source::files("src", &[".rs"]);
    // A port-forward over SPDY is begun by a POST that changes no object; it is the only one there.
    const UPGRADE: &str = "src/forward/carrier/tunnel/upgrade.rs";
    let upgrade = holds(&source::file(UPGRADE), &WRITES);
    assert!(matches!(upgrade.as_slice(), [one] if one.contains("Method::POST")), "{upgrade:?}");
    // The pod that `--probe-pod` asks for is made and deleted there, and nothing else.
    const PROBE_POD: &str = "src/observe/probe_pod/mod.rs";
    assert_eq!(source::file(PROBE_POD).product_code().matches(".create(").count(), 1);
    // The question for one's own rights is a POST of an object that nobody stores.
    const RIGHTS: &str = "src/observe/rights.rs";
    let rights = source::file(RIGHTS).product_code();
    let asks = rights.contains("let api: Api<SelfSubjectRulesReview>") && rights.contains("api.create(");
    assert!(asks && rights.matches("Api<").count() == 1 && rights.matches(".create(").count() == 1, "{rights}");
    let others = files.iter().filter(|f| !f.is_in(&["src/apply", UPGRADE, PROBE_POD, RIGHTS]));
    crate::none_of(others.flat_map(|f| holds(f, &WRITES)));
}

#[test]
fn only_i18n_knows_the_translation_library() {
    let files = source::files("src", &[".rs"]);
    let others = files.iter().filter(|f| !f.is_in(&LANGUAGE));
    crate::none_of(others.flat_map(|f| holds(f, &["rust_i18n"])));
    let lib = source::file("src/lib.rs").product_code();
    assert_eq!(lib.matches("rust_i18n").count(), 1, "src/lib.rs loads the texts, nothing more");
}

#[test]
fn only_the_outermost_layer_writes_to_the_terminal() {
    let files = source::files("src", &[".rs"]);
    let others = files.iter().filter(|f| !f.is_in(&WRITING));
    crate::none_of(others.flat_map(|f| holds(f, &OUTLETS)));
}

#[test]
fn an_impurity_is_found_however_it_is_written() {
    let found = |text: &str| impurities(&Source { path: "x.rs".into(), text: text.into() });
    for (text, path) in [
        ("use std::{collections::BTreeMap, fs};", "std::fs"),
        ("use std::{collections::{BTreeMap, HashMap}, net::{IpAddr, TcpStream}};", "std::net::TcpStream"),
        ("use std::fs::{self, File};", "std::fs"),
        ("use std::process as p;", "std::process"),
        ("fn f() { std::env::var(\"HOME\"); }", "std::env"),
        ("use kube::{Client, ResourceExt};", "kube::Client"),
        ("use kube::api::ListParams;", "kube::api"),
        ("fn f() { tracing::info!(\"x\"); }", "tracing"),
        ("use tokio;\nfn f() {}", "tokio"),
        ("fn f() { let t = jiff::Timestamp::now(); }", "Timestamp::now"),
        ("async fn f() {}", "async fn"),
    ] {
        assert!(found(text).iter().any(|line| line.contains(path)), "{text}: {:?}", found(text));
    }
    for text in [
        "use std::{collections::BTreeMap, net::IpAddr, time::Duration};",
        "use kube::ResourceExt;\nuse crate::tokio_like::x;\nfn rand(tracing: u8) {}",
        "// std::fs and tokio::spawn\nfn f() { g(\"std::env\") }\n#[cfg(test)]\nmod tests { use std::fs; }",
    ] {
        assert_eq!(found(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_write_is_found() {
    let found = |text: &str| holds(&Source { path: "x.rs".into(), text: text.into() }, &WRITES).len();
    assert_eq!(found("api.patch(name, &PatchParams::apply(\"x\"), &Patch::Json(p))"), 1);
    assert_eq!(found("let r = http::Request::post(url); let m = Method::DELETE;"), 2);
    assert_eq!(found("text.replace('a', \"b\"); list.delete(); // PatchParams"), 0);
}
