//! One thing, one name: the file, the code, the texts and the fixture of a check; the file, the texts and the name of an action.

use std::collections::BTreeSet;

use crate::source;

/// `ba1002_cluster_ip` gives `ba1002` and `cluster-ip`.
fn stem_parts(stem: &str) -> Option<(String, String)> {
    let (code, slug) = stem.split_once('_')?;
    let digits = code.strip_prefix("ba")?;
    let four = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    (four && !slug.is_empty()).then(|| (code.to_owned(), slug.replace('_', "-")))
}

/// `ServiceNodePort` gives `service-node-port`, as serde's `kebab-case` does.
fn kebab(variant: &str) -> String {
    let mut name = String::new();
    for c in variant.chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// File names without folder and ending, below a folder.
fn stems(folder: &str, ending: &str) -> BTreeSet<String> {
    let files = source::files(folder, &[ending]);
    files.iter().map(|f| f.path.rsplit('/').next().unwrap().trim_end_matches(ending).to_owned()).collect()
}

/// The value of the first `field: …` of blanked-out-comment text, up to the comma.
fn field(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("{name}: "))?;
    let value = rest.split([',', '\n']).next()?;
    Some(value.trim().to_owned())
}

/// The variants of an enum without data, in the order of the source.
pub fn variants(path: &str, name: &str) -> Vec<String> {
    let source = source::file(path);
    let code = source.product_code();
    let start = code.find(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("{path} has no enum {name}"));
    let body = &code[start + code[start..].find('{').unwrap()..];
    let body = &body[1..source::braces(body) - 1];
    body.split(',').map(|part| part.split_whitespace().collect::<String>()).filter(|part| !part.is_empty()).collect()
}

/// What is in one set and not in the other.
fn missing(have: &BTreeSet<String>, want: &BTreeSet<String>, tell: impl Fn(&str) -> String) -> Vec<String> {
    want.difference(have).map(|name| tell(name)).collect()
}

#[test]
fn the_names_of_a_check_agree() {
    let mut found = Vec::new();
    let mut codes = BTreeSet::new();
    for file in source::files("src/check/checks", &[".rs"]) {
        let stem = file.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        if stem == "mod" {
            continue;
        }
        let Some((code, slug)) = stem_parts(stem) else {
            found.push(format!("{}: a check's file is named baNNNN_what_it_finds.rs", file.path));
            continue;
        };
        let said = (field(&file.text, "code"), field(&file.text, "slug"));
        let want = (format!("Code({})", code[2..].trim_start_matches('0')), format!("\"{slug}\""));
        if said != (Some(want.0.clone()), Some(want.1.clone())) {
            found.push(format!("{} says {said:?}; its name says {want:?}", file.path));
        }
        if !codes.insert(code) {
            found.push(format!("{}: its code is taken", file.path));
        }
    }
    assert!(!codes.is_empty(), "src/check/checks holds no check");
    let texts = stems("locales/checks", ".yml");
    found.extend(missing(&texts, &codes, |c| format!("locales/checks/{c}.yml is not there")));
    found.extend(missing(&codes, &texts, |c| format!("locales/checks/{c}.yml belongs to no check")));
    let fixtures = stems("src/check/testdata", ".yaml");
    let fixtures = fixtures.iter().filter(|f| !f.starts_with("healthy"));
    let fixtures: BTreeSet<_> = fixtures.map(|f| f.get(..6).unwrap_or(f).to_owned()).collect();
    found.extend(missing(&fixtures, &codes, |c| format!("src/check/testdata/{c}*.yaml is not there")));
    found.extend(missing(&codes, &fixtures, |c| format!("src/check/testdata/{c}*.yaml belongs to no check")));
    crate::none_of(found.into_iter());
}

#[test]
fn the_names_of_an_action_agree() {
    let actions: BTreeSet<_> = variants("src/model/plan.rs", "ActionName").iter().map(|v| kebab(v)).collect();
    let mut files = stems("src/plan/actions", ".rs");
    files.remove("mod");
    let files: BTreeSet<_> = files.iter().map(|f| f.replace('_', "-")).collect();
    let texts = stems("locales/actions", ".yml");
    let mut found = missing(&files, &actions, |a| format!("src/plan/actions/{}.rs is not there", a.replace('-', "_")));
    found
        .extend(missing(&actions, &files, |a| format!("src/plan/actions/{}.rs is no ActionName", a.replace('-', "_"))));
    found.extend(missing(&texts, &actions, |a| format!("locales/actions/{a}.yml is not there")));
    found.extend(missing(&actions, &texts, |a| format!("locales/actions/{a}.yml is no ActionName")));
    crate::none_of(found.into_iter());
}

#[test]
fn names_are_taken_apart_as_they_are_built() {
    let parts = |stem| stem_parts(stem).map(|(code, slug)| format!("{code} {slug}"));
    assert_eq!(parts("ba1002_cluster_ip").as_deref(), Some("ba1002 cluster-ip"));
    for bad in ["ba1002", "ba102_x", "ba10023_x", "b1002_x", "ba1002_"] {
        assert_eq!(parts(bad), None, "{bad}");
    }
    assert_eq!(kebab("PinToControlPlane"), "pin-to-control-plane");
    assert!(variants("src/model/plan.rs", "ActionName").contains(&"OpenForward".to_owned()));
}
