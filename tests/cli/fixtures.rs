//! Every fixture of the checks through the whole program: a judgement is made from the file alone.

use std::path::PathBuf;

use crate::binary::Bin;

/// The fixtures with their `# expect:` lines: code, severity, confidence, target.
fn fixtures() -> Vec<(PathBuf, Vec<Vec<String>>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/check/testdata");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).map(expected).collect();
    found.sort();
    assert!(found.len() > 20, "only {} fixtures", found.len());
    found
}

fn expected(path: PathBuf) -> (PathBuf, Vec<Vec<String>>) {
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
    assert!(!lines.is_empty() || path.to_string_lossy().contains("healthy"), "{}: no `# expect:`", path.display());
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    (path, lines.into_iter().filter(|line| *line != "nothing").map(words).collect())
}

fn hangul(text: &str) -> bool {
    text.chars().any(|c| ('가'..='힣').contains(&c))
}

#[test]
fn a_judgement_is_made_again_from_a_file() {
    let bin = Bin::new();
    for (path, expected) in fixtures() {
        let file = path.to_str().unwrap();
        let broken = expected.iter().any(|words| words[1] == "error");
        let json = bin.run(&["diagnose", "--from", file, "-o", "json"]);
        let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap_or_else(|e| panic!("{file}: {e}"));
        // A page may be silent without a cause that can be named, as in its first seconds.
        let silent = value["targets"].as_array().unwrap().iter().any(|target| target["reachable"] != true);
        if broken || !silent {
            assert_eq!(json.code, Some(i32::from(broken)), "{file}: {json:?}");
        }
        assert_eq!(value["exitCode"].as_i64(), json.code.map(i64::from), "{file}: {json:?}");
        assert_eq!(value["kind"], "Diagnosis", "{file}");
        let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let findings = value["findings"].as_array().unwrap().iter();
        let mut found: Vec<_> =
            findings.map(|f| ["code", "severity", "confidence", "target"].map(|k| text(f, k)).to_vec()).collect();
        let mut wanted = expected.clone();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{file}");
        assert!(!hangul(&json.stdout), "{file}: JSON is for programs, in English");
    }
}

#[test]
fn a_judgement_is_told_in_both_languages() {
    let bin = Bin::new();
    for (path, expected) in fixtures() {
        let file = path.to_str().unwrap();
        for language in ["ko", "en"] {
            let told = bin.run(&["diagnose", "--from", file, "--lang", language]);
            assert_eq!(hangul(&told.stdout), language == "ko", "{file} {language}: {}", told.stdout);
            for words in &expected {
                assert!(told.stdout.contains(&words[0]), "{file} {language}: no {}: {}", words[0], told.stdout);
            }
            for unfinished in ["%{", "check.BA", "ui.", "evidence."] {
                assert!(!told.stdout.contains(unfinished), "{file} {language}: `{unfinished}` in {}", told.stdout);
            }
        }
    }
}
