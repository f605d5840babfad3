//! The gate: what a translation library does not notice, a test does. A missing Korean text falls to English in
//! silence, a missing argument is printed as `%{name}`, a particle after a variable is wrong for half of all names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Keys made at run time, of a code or an action's name.
const DYNAMIC: [&str; 2] = ["check.", "action."];

/// Key → language → text.
type Texts = BTreeMap<String, BTreeMap<String, String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn texts() -> Texts {
    let mut texts = Texts::new();
    for path in files(&root().join("locales"), "yml") {
        let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(file["_version"], 2, "{}", path.display());
        let Value::Object(mut top) = file else { panic!("{} is no mapping", path.display()) };
        top.remove("_version");
        assert!(!top.is_empty(), "{} has no key", path.display());
        flatten(String::new(), &Value::Object(top), &mut texts);
    }
    texts
}

fn flatten(key: String, value: &Value, texts: &mut Texts) {
    let Value::Object(map) = value else { panic!("{key}: neither a mapping nor a text of a language") };
    for (name, value) in map {
        match value {
            Value::String(text) => {
                let before = texts.entry(key.clone()).or_default().insert(name.clone(), text.clone());
                assert_eq!(before, None, "{key} is there twice");
            }
            inner => flatten(if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, inner, texts),
        }
    }
}

fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split("%{").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
}

/// The sources that speak, without those of tests.
fn sources() -> Vec<(String, String)> {
    let spoken =
        files(&root().join("src"), "rs").into_iter().filter(|p| !p.ends_with("tests.rs") && !p.ends_with("gate.rs"));
    spoken
        .map(|path| {
            let source = std::fs::read_to_string(&path).unwrap();
            let end = source.find("\n#[cfg(test)]\nmod tests {").unwrap_or(source.len());
            (path.strip_prefix(root()).unwrap().display().to_string(), source[..end].to_owned())
        })
        .collect()
}

/// Everything between two quotes that looks like a key below one of the locale files' top keys.
fn keys_in<'a>(source: &'a str, tops: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let is_key = |piece: &&str| {
        piece.split_once('.').is_some_and(|(top, rest)| {
            tops.contains(top)
                && rest.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && !rest.is_empty()
        })
    };
    source.split('"').filter(is_key).collect()
}

/// Each `Text::new("key")` with the names of the `.with("name", …)` that follow it.
fn calls(source: &str) -> Vec<(&str, BTreeSet<&str>)> {
    let mut calls = Vec::new();
    for rest in source.split("Text::new(\"").skip(1) {
        let Some((key, mut rest)) = rest.split_once("\")") else { continue };
        let mut names = BTreeSet::new();
        while let Some(inner) = rest.trim_start().strip_prefix(".with(") {
            let Some(name) = inner.trim_start().strip_prefix('"').and_then(|s| s.split('"').next()) else { break };
            names.insert(name);
            rest = after_parenthesis(inner);
        }
        calls.push((key, names));
    }
    calls
}

/// What follows the parenthesis that closes the one just opened.
fn after_parenthesis(inner: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &inner[at + 1..];
        }
    }
    ""
}

fn korean() -> Vec<(String, String)> {
    texts().into_iter().filter_map(|(key, by)| Some((key, by.get("ko")?.clone()))).collect()
}

#[test]
fn the_languages_are_exactly_korean_and_english_under_every_key() {
    for (key, by_language) in texts() {
        let languages: Vec<&str> = by_language.keys().map(String::as_str).collect();
        assert_eq!(languages, ["en", "ko"], "{key}");
        assert!(by_language.values().all(|text| !text.trim().is_empty()), "{key} is empty");
        assert_ne!(by_language["ko"], by_language["en"], "{key} is not translated");
    }
    let mut languages = rust_i18n::available_locales!();
    languages.sort_unstable();
    assert_eq!(languages, ["en", "ko"]);
}

#[test]
fn placeholders_are_the_same_in_both_languages() {
    for (key, by_language) in texts() {
        assert_eq!(placeholders(&by_language["ko"]), placeholders(&by_language["en"]), "{key}");
    }
}

#[test]
fn every_key_in_the_sources_exists_and_every_existing_key_is_used() {
    let texts = texts();
    let tops: BTreeSet<&str> = texts.keys().filter_map(|key| key.split('.').next()).collect();
    let mut used = BTreeSet::new();
    for (path, source) in &sources() {
        for key in keys_in(source, &tops).into_iter().chain(calls(source).into_iter().map(|(key, _)| key)) {
            assert!(texts.contains_key(key), "{path}: there is no text {key:?}");
            used.insert(key.to_owned());
        }
    }
    let is_orphan = |key: &&String| !used.contains(*key) && !DYNAMIC.iter().any(|prefix| key.starts_with(prefix));
    let orphans: Vec<&String> = texts.keys().filter(is_orphan).collect();
    assert!(orphans.is_empty(), "texts that nobody says: {orphans:#?}");
}

#[test]
fn every_sentence_gets_its_arguments() {
    let texts = texts();
    for (path, source) in &sources() {
        for (key, names) in calls(source) {
            let Some(text) = texts.get(key) else { panic!("{path}: there is no text {key:?}") };
            assert_eq!(placeholders(&text["en"]), names, "{path}: {key}");
        }
    }
}

#[test]
fn no_particle_ends_a_word_right_after_a_variable() {
    for (key, text) in korean() {
        for rest in text.split('}').skip(1) {
            let rest = rest.trim_start_matches(['\'', '"', '`', ')', ']', '>']);
            for particle in ["은", "는", "이", "가", "을", "를", "과", "와", "으로", "로"] {
                let ends = rest.strip_prefix(particle).is_some_and(|r| !r.starts_with(char::is_alphanumeric));
                assert!(!ends, "{key}: put a class noun between the variable and `{particle}`: {text}");
            }
        }
    }
}

#[test]
fn korean_keeps_one_register_and_the_glossary() {
    for (key, text) in korean() {
        for (at, _) in text.match_indices("다.") {
            let formal = text[..at].ends_with('니');
            assert!(formal, "{key}: a sentence ends in 합쇼체: {text}");
        }
        for word in [
            "요.",
            "세요",
            "당신",
            "되어지",
            "포드",
            "라벨",
            "끝점",
            "포트 전달",
            "컨트롤플레인",
            "객체",
            "옵션",
            "네트워크 정책",
            "서비스들",
            "파드들",
            "노드들",
        ] {
            assert!(!text.contains(word), "{key}: `{word}`: {text}");
        }
    }
}

#[test]
fn the_scanner_sees_what_it_should() {
    let source = r#"Text::new("a.b").with("x", f("(")).with( "y", 1) ; Text::new("a.c"), say("a.d")"#;
    let calls = calls(source);
    assert_eq!(calls[0], ("a.b", BTreeSet::from(["x", "y"])));
    assert_eq!(calls[1], ("a.c", BTreeSet::new()));
    assert_eq!(keys_in(source, &BTreeSet::from(["a"])), BTreeSet::from(["a.b", "a.c", "a.d"]));
    assert_eq!(placeholders("%{a} b %{c_d}"), BTreeSet::from(["a", "c_d"]));
}
