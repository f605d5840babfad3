//! The tree as the rules read it: files with their text, and their code without comments, literals and test modules.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];
/// What stands before a module of tests.
const TEST_MARK: &str = "#[cfg(test)]";

/// One file, its path relative to the top with `/` between the parts.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// Whether the path is, or lies below, one of these.
    pub fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.path
                .strip_prefix(place)
                .is_some_and(|rest| rest.is_empty() || place.ends_with('/') || rest.starts_with('/'))
        })
    }

    /// `path:line` of an offset.
    pub fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.text[..offset].matches('\n').count() + 1)
    }

    /// The code alone: comments, literals and `#[cfg(test)]` modules blanked, offsets and lines kept. A file that is
    /// such a module has none.
    pub fn product_code(&self) -> String {
        let mut code = code(&self.text);
        if self.is_test_module() {
            let all = 0..code.len();
            blank(&mut code, all);
        }
        for module in test_modules(&code) {
            blank(&mut code, module);
        }
        code
    }
}

impl Source {
    /// Whether the file above declares this one as `#[cfg(test)] mod name;`.
    fn is_test_module(&self) -> bool {
        let Some((folder, name)) = self.path.trim_end_matches(".rs").rsplit_once('/') else { return false };
        let above = [
            format!("{folder}/mod.rs"),
            format!("{folder}.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
        ];
        above.iter().filter(|path| top().join(path).is_file()).any(|path| {
            let code = code(&file(path).text);
            code.match_indices(TEST_MARK).any(|(at, _)| {
                let declaration = code[at + TEST_MARK.len()..].split(['{', ';']).next().unwrap_or_default();
                declaration.split_whitespace().collect::<Vec<_>>().ends_with(&["mod", name])
            })
        })
    }
}

/// The top folder of the repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a place (a folder or a file) whose name ends in one of the endings, in order of their paths.
pub fn files(place: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&top().join(place), endings, &mut found);
    found.sort_by(|a: &Source, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file of the repository.
pub fn rust() -> Vec<Source> {
    let found = files("", &[".rs"]);
    assert!(found.iter().any(|f| f.path == "src/lib.rs"), "the walk over the tree finds no src/lib.rs");
    found
}

/// One file that must be there.
pub fn file(path: &str) -> Source {
    let text = fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    Source { path: path.to_owned(), text }
}

fn collect(place: &Path, endings: &[&str], found: &mut Vec<Source>) {
    if place.is_file() {
        let path = relative(place);
        if endings.iter().any(|ending| path.ends_with(ending)) {
            found.push(file(&path));
        }
        return;
    }
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries {
        let entry = entry.expect("a folder of the repository can be listed");
        let name = entry.file_name();
        if !SKIPPED.iter().any(|skipped| name.to_str() == Some(skipped)) {
            collect(&entry.path(), endings, found);
        }
    }
}

fn relative(path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(top()).expect("the walk stays below the top").into();
    path.to_string_lossy().replace('\\', "/")
}

/// The text with comments and literals blanked; as long as the text, with the same line breaks.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = text.to_owned();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => at + line(&bytes[at..]),
            b'/' if bytes[at..].starts_with(b"/*") => at + block_comment(&bytes[at..]),
            b'"' => at + string(&bytes[at..]),
            b'r' if !is_word(bytes, at) => at + raw_string(&bytes[at..]).unwrap_or(0),
            b'\'' => at + char_literal(&text[at..]).unwrap_or(0),
            _ => at,
        };
        blank(&mut out, at..end);
        at = end.max(at + 1);
    }
    out
}

/// Whether the byte before continues a word, so that an `r` here begins no raw string (`br"…"` excepted).
fn is_word(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|i| bytes[i]);
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match before(1) {
        Some(b'b' | b'c') => before(2).is_some_and(word),
        Some(b) => word(b),
        None => false,
    }
}

fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len())
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of `r"…"` or `r#"…"#`; none where no raw string begins here.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    let length = bytes[body..].windows(end.len()).position(|w| w == end);
    Some(length.map_or(bytes.len(), |n| body + n + end.len()))
}

/// The length of a character literal; none where the quote begins a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return text[3..].find('\'').map(|n| n + 4);
    }
    let (at, next) = chars.next()?;
    (next == '\'').then_some(at + 1)
}

fn blank(text: &mut String, range: Range<usize>) {
    let range = range.start..range.end.min(text.len());
    let blanked: String = text[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(range, &blanked);
}

/// The `#[cfg(test)]` modules (`mod name { … }`) of blanked code.
pub fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = code[from..].find(TEST_MARK).map(|n| n + from) {
        from = start + TEST_MARK.len();
        let rest = &code[from..];
        let Some(open) = rest.find(['{', ';']).filter(|n| rest[*n..].starts_with('{')) else { continue };
        if rest[..open].split_whitespace().rev().nth(1) != Some("mod") {
            continue;
        }
        let end = from + open + braces(&rest[open..]);
        found.push(start..end);
        from = end;
    }
    found
}

/// The length of the block that begins here, in blanked code.
pub fn braces(code: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn code_is_what_is_left_without_comments_literals_and_tests() {
    let text = r###"//! doc
use a::b; // std::fs
/* tokio /* nested */ still */ fn f<'a>(x: &'a str) -> char { '"' }
const S: &str = "std::fs \" tokio"; const R: &str = r#"tokio " ::"#;
const C: [char; 3] = ['\'', '\u{1F600}', '한']; fn g() { br"tokio"; }
#[cfg(test)]
use std::fs;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests { fn t() { if true { tokio() } } }
fn after() {}
"###;
    let source = Source { path: "x.rs".into(), text: text.into() };
    let code = source.product_code();
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("tokio"), "{code}");
    assert_eq!(code.matches("std::fs").count(), 1, "{code}");
    for kept in ["use a::b;", "fn f<'a>(x: &'a str)", "fn g()", "fn after() {}"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
    let module = Source { path: "src/cli/args/tests.rs".into(), text: "//! x\nfn f() {}\n".into() };
    assert_eq!(module.product_code().trim(), "", "src/cli/args/mod.rs says that it is a module of tests");
    assert_eq!(source.place(text.find("fn after").unwrap()), "x.rs:11");
}
