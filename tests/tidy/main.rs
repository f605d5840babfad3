//! The rules of the tree, each a test: what ARCHITECTURE.md promises is held here, and nowhere else.
#![allow(clippy::unwrap_used, reason = "a rule that cannot read the tree fails")]

mod documents;
mod names;
mod purity;
mod source;

/// Lines of a file without its test modules; a file that grows beyond is two files.
const LONGEST: usize = 600;

/// Fails with every violation, one a line.
fn none_of(violations: impl Iterator<Item = String>) {
    let all: Vec<String> = violations.collect();
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |f: &&source::Source| !f.text.starts_with("//! ") || f.text.lines().next().unwrap().len() < 10;
    none_of(source::rust().iter().filter(silent).map(|f| format!("{} does not begin with `//! …`", f.path)));
}

#[test]
fn no_file_is_too_long() {
    let lines = |f: &source::Source| f.product_code().lines().filter(|line| !line.trim().is_empty()).count();
    let all = source::rust();
    let long = all.iter().map(|f| (f, lines(f))).filter(|(_, lines)| *lines > LONGEST);
    none_of(long.map(|(f, lines)| format!("{} has {lines} lines of code: {LONGEST} are allowed", f.path)));
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_to_do() {
    let marks = ["#[ignore", "todo!(", "unimplemented!("];
    let mut found = Vec::new();
    for file in source::rust() {
        let code = source::code(&file.text);
        for mark in marks {
            found.extend(code.match_indices(mark).map(|(at, _)| format!("{} holds `{mark}`", file.place(at))));
        }
        for mark in [concat!("FIX", "ME"), concat!("TO", "DO:"), concat!("X", "XX")] {
            found.extend(file.text.match_indices(mark).map(|(at, _)| format!("{} holds `{mark}`", file.place(at))));
        }
    }
    none_of(found.into_iter());
}

#[test]
fn no_file_knows_a_developers_machine() {
    let mut marks = vec![concat!("/root/.ca", "rgo").to_owned()];
    let own = [Some(source::top().to_string_lossy().into_owned()), std::env::var("HOME").ok()];
    // A folder right below the root has a name too short to tell from a path that is meant.
    marks.extend(own.into_iter().flatten().filter(|path| path.matches('/').count() > 1 && path.len() > 6));
    let mut found = Vec::new();
    for file in source::files("", &[".rs", ".md", ".yml", ".yaml", ".toml", ".json", ".ci/run"]) {
        for mark in &marks {
            found.extend(
                file.text.match_indices(mark.as_str()).map(|(at, _)| format!("{} names {mark}", file.place(at))),
            );
        }
    }
    none_of(found.into_iter());
}
