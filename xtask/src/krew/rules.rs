//! What krew and the checks of its index ask of a manifest: each rule that is broken is one sentence.

use super::{Manifest, Platform};

/// The systems and processors that krew knows.
const PLACES: [(&str, &str); 11] = [
    ("windows", "386"),
    ("windows", "amd64"),
    ("windows", "arm64"),
    ("linux", "386"),
    ("linux", "amd64"),
    ("linux", "arm"),
    ("linux", "arm64"),
    ("linux", "ppc64le"),
    ("darwin", "386"),
    ("darwin", "amd64"),
    ("darwin", "arm64"),
];
/// Names that Windows keeps for devices.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];
/// The most characters of a short description.
const SHORT: usize = 50;
/// The width of a description.
const WIDTH: usize = 80;

/// The rules that are broken.
pub fn broken(manifest: &Manifest) -> Vec<String> {
    let Manifest { name, version, homepage, short, description, platforms, .. } = manifest;
    let mut said = Vec::new();
    let mut ask = |good: bool, sentence: String| {
        if !good {
            said.push(sentence);
        }
    };
    ask(is_name(name), format!("the name {name:?} must be lower case words with dashes, without `kube`"));
    ask(is_version(version), format!("the version {version:?} must be a v and a semantic version, such as v1.2.3"));
    ask(homepage.starts_with("https://"), format!("the home page {homepage:?} must begin with https://"));
    let length = short.chars().count();
    ask(
        (1..=SHORT).contains(&length) && !short.contains('\n'),
        format!("the short description must be one line of 1 to {SHORT} characters, and has {length}: {short:?}"),
    );
    ask(!description.trim().is_empty(), "the description must say something".to_owned());
    for line in description.lines().filter(|line| line.chars().count() > WIDTH) {
        ask(false, format!("the description must be wrapped at {WIDTH} characters: {line:?}"));
    }
    ask(
        !description.contains(&format!("kubectl {name}")),
        "the description must hold no examples of use: those belong on the home page".to_owned(),
    );
    ask(!platforms.is_empty(), "at least one platform must be there".to_owned());
    for (at, platform) in platforms.iter().enumerate() {
        let place = (platform.os.as_str(), platform.arch.as_str());
        let twice = platforms[..at].iter().any(|other| (other.os.as_str(), other.arch.as_str()) == place);
        ask(!twice, format!("{} {} must have one archive, and has two", place.0, place.1));
        said_of(platform, &mut ask);
    }
    said
}

fn said_of(platform: &Platform, ask: &mut impl FnMut(bool, String)) {
    let Platform { os, arch, uri, sha256, bin, files } = platform;
    let place = format!("{os} {arch}");
    ask(
        PLACES.contains(&(os.as_str(), arch.as_str())),
        format!(
            "{place} is no system that krew knows: it knows {}",
            PLACES.map(|(os, arch)| format!("{os} {arch}")).join(", ")
        ),
    );
    ask(
        uri.starts_with("https://") && (uri.ends_with(".tar.gz") || uri.ends_with(".zip")),
        format!("{place}: the address {uri:?} must be https and that of a .tar.gz or .zip"),
    );
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    ask(
        sha256.len() == 64 && sha256.bytes().all(lower_hex),
        format!("{place}: the checksum {sha256:?} must be 64 hexadecimal digits in lower case"),
    );
    ask(os != "windows" || bin.ends_with(".exe"), format!("{place}: the program {bin:?} must end with .exe"));
    ask(
        files.contains(bin),
        format!("{place}: the archive must hold the program {bin:?}, and holds {}", files.join(", ")),
    );
    ask(files.iter().any(|file| is_licence(file)), format!("{place}: the archive must hold the LICENSE"));
}

fn is_name(name: &str) -> bool {
    let words = || name.split('-');
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    // Devices are kept with a digit as well: com1, lpt9.
    let device = DEVICES.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit()));
    words().all(plain) && !words().any(|word| word.starts_with("kube")) && !device
}

/// A `v`, then a version by semver.org.
fn is_version(version: &str) -> bool {
    let Some(version) = version.strip_prefix('v') else { return false };
    let (version, build) = version.split_once('+').map_or((version, None), |(version, build)| (version, Some(build)));
    let (version, before) =
        version.split_once('-').map_or((version, None), |(version, before)| (version, Some(before)));
    let number = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
    };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    version.split('.').count() == 3
        && version.split('.').all(number)
        && before.is_none_or(|before| before.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// As krew looks for it after an installation.
fn is_licence(file: &str) -> bool {
    let name = file.to_ascii_lowercase();
    ["license", "copying"].iter().any(|word| name.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Manifest {
        let platform = |os: &str, bin: &str| Platform {
            os: os.to_owned(),
            arch: "amd64".to_owned(),
            uri: "https://example.org/a.tar.gz".to_owned(),
            sha256: "0123456789abcdef".repeat(4),
            bin: bin.to_owned(),
            files: vec!["LICENSE".to_owned(), bin.to_owned()],
        };
        Manifest {
            name: "bookaccess".to_owned(),
            version: "v1.2.3".to_owned(),
            homepage: "https://example.org".to_owned(),
            short: "Opens pages".to_owned(),
            description: "It opens\npages.\n".to_owned(),
            caveats: String::new(),
            platforms: vec![platform("linux", "x"), platform("windows", "x.exe")],
        }
    }

    /// What is wrong, and a part of the one sentence about it.
    type Case = (fn(&mut Manifest), &'static str);

    #[test]
    fn each_rule_is_one_sentence() {
        assert_eq!(broken(&good()), [""; 0]);
        let cases: &[Case] = &[
            (|m| m.name = "Book Access".to_owned(), "the name \"Book Access\""),
            (|m| m.name = "kube-book".to_owned(), "without `kube`"),
            (|m| m.name = "com1".to_owned(), "the name \"com1\""),
            (|m| m.version = "1.2.3".to_owned(), "must be a v and a semantic version"),
            (|m| m.homepage = "http://example.org".to_owned(), "must begin with https://"),
            (|m| m.short = String::new(), "and has 0"),
            (|m| m.short = "x".repeat(51), "of 1 to 50 characters, and has 51"),
            (|m| m.short = "two\nlines".to_owned(), "one line"),
            (|m| m.description = "\n".to_owned(), "must say something"),
            (|m| m.description = "x".repeat(81), "wrapped at 80"),
            (|m| m.description = "Type kubectl bookaccess fix.".to_owned(), "no examples"),
            (|m| m.platforms.clear(), "at least one platform"),
            (|m| m.platforms.push(m.platforms[0].clone()), "linux amd64 must have one archive, and has two"),
            (|m| m.platforms[0].os = "plan9".to_owned(), "plan9 amd64 is no system"),
            (|m| m.platforms[0].arch = String::new(), "is no system that krew knows"),
            (|m| m.platforms[0].uri = "https://example.org/a.tar.xz".to_owned(), ".tar.gz or .zip"),
            (|m| m.platforms[0].uri = "a.tar.gz".to_owned(), "must be https"),
            (|m| m.platforms[0].sha256 = "0123456789ABCDEF".repeat(4), "in lower case"),
            (|m| m.platforms[0].sha256 = "abc".to_owned(), "64 hexadecimal digits"),
            (|m| (m.platforms[1].bin, m.platforms[1].files[1]) = ("x".to_owned(), "x".to_owned()), "end with .exe"),
            (|m| m.platforms[0].files.truncate(1), "must hold the program \"x\", and holds LICENSE"),
            (|m| drop(m.platforms[1].files.remove(0)), "windows amd64: the archive must hold the LICENSE"),
        ];
        for (spoil, part) in cases {
            let mut manifest = good();
            spoil(&mut manifest);
            let said = broken(&manifest);
            assert!(said.len() == 1 && said[0].contains(part), "{part}: {said:?}");
        }
    }

    #[test]
    fn versions_are_semantic() {
        for good in ["v0.1.0", "v1.2.3", "v1.0.0-rc.1", "v1.0.0+build.5", "v10.20.30-a-b.0+001"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["v1.2", "v1.2.3.4", "v01.2.3", "v1.2.3-", "v1.2.3-01", "v1.2.x", "V1.2.3", "v1.2.3+", ""] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
