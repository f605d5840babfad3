//! What the documents promise is so: every invariant has its test, the tables are those of the code, the gate is one command.

use std::collections::{BTreeMap, BTreeSet};

use crate::{names, source};

/// The numbered sentences of a document's section, each joined to one line.
fn numbered(text: &str, section: &str) -> Vec<String> {
    let (_, rest) = text.split_once(section).unwrap_or_else(|| panic!("no section `{section}`"));
    let body = rest.split("\n## ").next().unwrap();
    let mut items: Vec<String> = Vec::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let number = line.split_once(". ").and_then(|(n, _)| n.parse::<usize>().ok());
        match number {
            Some(number) => {
                assert_eq!(number, items.len() + 1, "the numbers of `{section}` have a gap at: {line}");
                items.push(line.to_owned());
            }
            None if !items.is_empty() => items.last_mut().unwrap().push_str(&format!(" {line}")),
            None => {}
        }
    }
    items
}

/// The names of all test functions of the tree.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in source::rust() {
        let code = source::code(&file.text);
        for mark in ["#[test]", "#[tokio::test"] {
            for (at, _) in code.match_indices(mark) {
                let Some((_, name)) = code[at..].split_once("fn ") else { continue };
                found.insert(name.split(['(', '<', ' ']).next().unwrap().to_owned());
            }
        }
    }
    found
}

/// The names after `test:` (or `tests:`), each in backticks.
fn named_tests(item: &str) -> Vec<String> {
    let Some((_, list)) = item.split_once("(test").and_then(|(_, rest)| rest.split_once(": ")) else {
        return Vec::new();
    };
    list.split(')').next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Code to name of every `Name = N` of the exit codes.
fn exit_codes() -> BTreeMap<u8, String> {
    let mut codes = BTreeMap::new();
    for variant in names::variants("src/exit.rs", "Exit") {
        let (name, code) = variant.split_once('=').unwrap_or_else(|| panic!("{variant} has no number"));
        let before = codes.insert(code.parse().unwrap(), name.to_owned());
        assert_eq!(before, None, "two exit codes are {code}");
    }
    codes
}

/// The numbers of the first column of the table below a heading, in order.
fn first_column(text: &str, heading: &str) -> Vec<u8> {
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let table = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    table.filter_map(|line| line.split('|').nth(1)?.trim().parse().ok()).collect()
}

#[test]
fn every_invariant_names_its_tests() {
    let items = numbered(&source::file("ARCHITECTURE.md").text, "\n## Invariants\n");
    assert!(items.len() >= 10, "only {} invariants are there", items.len());
    let tests = tests();
    let mut found = Vec::new();
    for item in items {
        let named = named_tests(&item);
        if named.is_empty() {
            found.push(format!("no test is named: {item}"));
        }
        found.extend(named.into_iter().filter(|t| !tests.contains(t)).map(|t| format!("no test `{t}`: {item}")));
    }
    crate::none_of(found.into_iter());
}

#[test]
fn the_readmes_list_the_exit_codes() {
    let want: Vec<u8> = exit_codes().into_keys().collect();
    for (path, heading) in [("README.md", "\n## Exit codes\n"), ("README.ko.md", "\n## 종료 코드\n")] {
        assert_eq!(first_column(&source::file(path).text, heading), want, "{path}");
    }
}

#[test]
fn the_readmes_name_the_two_commands_and_each_other() {
    for (path, other) in [("README.md", "README.ko.md"), ("README.ko.md", "README.md")] {
        let text = source::file(path).text;
        for needed in ["cargo xtask demo", "cargo xtask test", other] {
            assert!(text.contains(needed), "{path} does not name {needed}");
        }
    }
}

#[test]
fn the_gate_is_the_command_of_the_readme() {
    let gate = source::file(".ci/run").text;
    let commands: Vec<_> = gate.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    assert_eq!(commands, ["set -euo pipefail", "cd \"$(dirname \"$0\")/..\"", "exec cargo xtask test"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(source::top().join(".ci/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, ".ci/run is not executable");
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut found = Vec::new();
    for file in source::files("", &[".md"]) {
        for (at, _) in file.text.match_indices("](") {
            let target = file.text[at + 2..].split([')', '#', ' ']).next().unwrap();
            let outside = target.is_empty() || target.contains("://");
            let base = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if !outside && !source::top().join(base).join(target).exists() {
                found.push(format!("{} links to {target}, which is not there", file.place(at)));
            }
        }
    }
    crate::none_of(found.into_iter());
}

#[test]
fn an_invariant_is_read_as_written() {
    let text = "x\n## Invariants\n\nIntro.\n\n1. One\n   goes on (test: `a`).\n2. Two (tests: `b`, `c`).\n3. Three.\n\n## Next\n1. No\n";
    let items = numbered(text, "\n## Invariants\n");
    let named: Vec<_> = items.iter().map(|item| named_tests(item)).collect();
    assert_eq!(items[0], "1. One goes on (test: `a`).");
    assert_eq!(named, [vec!["a"], vec!["b", "c"], vec![]]);
}
