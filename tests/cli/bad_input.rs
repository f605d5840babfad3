//! Files that are no snapshots of this program, or not any more: each is one sentence that says what would be right.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bookaccess::observe::{file, redact};

use crate::binary::Bin;

fn healthy() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/check/testdata/healthy_kubeadm.yaml"))
        .unwrap()
}

/// A snapshot as `--save` writes it.
fn saved(bin: &Bin) -> String {
    let (from, to) = (bin.home().join("healthy.yaml"), bin.home().join("saved.json"));
    std::fs::write(&from, healthy()).unwrap();
    file::save(&redact::redact(file::read(&from).unwrap()), &to).unwrap();
    std::fs::read_to_string(to).unwrap()
}

#[test]
fn each_bad_file_is_one_sentence_in_both_languages_and_code_2() {
    let bin = Bin::new();
    let saved = saved(&bin);
    let half = &saved[..saved.len() / 2];
    let newer = "{\"version\": 7, \"takenAt\": \"2030-01-01T00:00:00Z\", \"targets\": {\"shape\": \"of later\"}}";
    let typed = healthy().replace("containerPort: 9080", "containerPort: web");
    let absurd = saved.replacen("\"nodePort\": 30080", "\"nodePort\": 99999999999", 1);
    let years = saved.replacen("2026-11-23T12:00:00Z", "292277026596-01-01T00:00:00Z", 1);
    let save = "diagnose --save";
    for (name, content, ko, en) in [
        ("newer.json", newer, "7번", "format 7"),
        ("newer.yaml", &healthy().replacen("version: 1", "version: 2", 1), "2번", "format 2"),
        ("half.json", half, "끊겼습니다", "ends in the middle"),
        ("brace.json", "{", "끊겼습니다", "ends in the middle"),
        ("typed.yaml", &typed, "쓸 수 없는 값", "cannot stand there"),
        ("absurd.json", &absurd, "쓸 수 없는 값", "cannot stand there"),
        ("years.json", &years, "쓸 수 없는 값", "cannot stand there"),
        ("pod.json", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {}}", save, save),
        ("list.yaml", "- a\n- b\n", save, save),
        ("text", "hello", save, save),
        ("empty", "", save, save),
        ("version.json", "{\"version\": \"one\"}", save, save),
    ] {
        let path = bin.home().join(name);
        std::fs::write(&path, content).unwrap();
        refused(&bin, &path, ko, en);
    }
    let bytes = bin.home().join("bytes");
    std::fs::write(&bytes, [0, 159, 146, 150]).unwrap();
    refused(&bin, &bytes, save, save);
    refused(&bin, &bin.home().join("missing"), "파일이 없습니다", "There is no file");
    refused(&bin, bin.home(), "디렉터리", "is a folder");
}

fn refused(bin: &Bin, path: &Path, ko: &str, en: &str) {
    let file = path.to_str().unwrap();
    for (language, said) in [("ko", ko), ("en", en)] {
        let ended = bin.run(&["diagnose", "--from", file, "--lang", language]);
        // A long path is broken over lines.
        let joined = ended.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains(said), "no `{said}` in {ended:?}");
        crate::refused(&ended, 2, &[]);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(ended.stderr.replace(char::is_whitespace, "").contains(name), "{ended:?}");
        assert!(ended.stderr.lines().count() <= 6, "{ended:?}");
    }
}

#[test]
fn a_file_of_any_size_is_refused_before_it_is_read() {
    let bin = Bin::new();
    let path = bin.home().join("huge.json");
    // Without a byte of it on the disk.
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    refused(&bin, &path, "512 MiB", "512 MiB");
    assert!(bin.run(&["diagnose", "--from", path.to_str().unwrap()]).took < std::time::Duration::from_secs(2));
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let bin = Bin::new();
    let saved = saved(&bin).replacen('{', "{\"later\": {\"field\": [1, 2]},", 1);
    let path: PathBuf = bin.home().join("later.json");
    File::create(&path).unwrap().write_all(saved.as_bytes()).unwrap();
    let ended = bin.run(&["diagnose", "--from", path.to_str().unwrap()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}
