//! What commands write into documents: transcripts in the READMEs, sections elsewhere; their shape is held by tests.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Both carry the same transcripts.
pub const READMES: [&str; 2] = ["README.md", "README.ko.md"];

/// The top folder of the repository this was built in.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Puts a transcript between the marks of its name in both READMEs.
pub fn record(name: &str, transcript: &str) -> Result<()> {
    for readme in READMES {
        let path = top().join(readme);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {readme}"))?;
        let text = replace(&text, name, transcript).with_context(|| readme.to_owned())?;
        fs::write(&path, text).with_context(|| format!("cannot write {readme}"))?;
    }
    Ok(())
}

/// Puts what `cargo xtask COMMAND` saw between the marks of its name in a document.
pub fn section(document: &str, name: &str, command: &str, markdown: &str) -> Result<()> {
    let path = top().join(document);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {document}"))?;
    let text = with_section(&text, name, command, markdown).with_context(|| document.to_owned())?;
    fs::write(&path, text).with_context(|| format!("cannot write {document}"))
}

fn with_section(text: &str, name: &str, command: &str, markdown: &str) -> Result<String> {
    let old = marked(text, name, command)?;
    Ok(format!("{}\n{}\n\n{}", &text[..old.start], markdown.trim(), &text[old.end..]))
}

/// Where the text between the marks of a name stands, which `cargo xtask COMMAND --record` writes.
pub fn marked(text: &str, name: &str, command: &str) -> Result<Range<usize>> {
    let begin = format!("<!-- {name}: recorded by `cargo xtask {command} --record` -->\n");
    let end = format!("<!-- /{name} -->\n");
    let start = text.find(&begin).with_context(|| format!("no mark {begin}"))? + begin.len();
    let length = text[start..].find(&end).with_context(|| format!("no mark {end}"))?;
    Ok(start..start + length)
}

/// The fenced text between the marks.
fn between<'t>(text: &'t str, name: &str) -> Result<&'t str> {
    let block = &text[marked(text, name, name)?];
    let inner = block.strip_prefix("```text\n").and_then(|inner| inner.strip_suffix("```\n"));
    inner.with_context(|| format!("between the marks of {name} stands no ```text block"))
}

fn replace(text: &str, name: &str, transcript: &str) -> Result<String> {
    let old = between(text, name)?;
    let start = old.as_ptr() as usize - text.as_ptr() as usize;
    Ok(format!("{}{}\n{}", &text[..start], transcript.trim_end(), &text[start + old.len()..]))
}

/// The seconds and the words of a step's line, `✔   3.2 s  what was done`.
#[cfg(test)]
pub fn step(line: &str) -> Option<(f64, &str)> {
    let (seconds, words) = line.strip_prefix("✔ ")?.split_once(" s  ")?;
    Some((seconds.trim().parse().ok()?, words))
}

/// As [`step`] reads it.
pub fn step_line(took: std::time::Duration, words: &str) -> String {
    format!("✔ {:6.1} s  {words}", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_transcript_takes_the_place_of_the_former() {
        let text = "a\n<!-- demo: recorded by `cargo xtask demo --record` -->\n```text\nold\n```\n<!-- /demo -->\nb\n";
        let new = replace(text, "demo", "new\nlines\n\n").unwrap();
        assert_eq!(new, text.replace("old", "new\nlines"));
        assert_eq!(between(&new, "demo").unwrap(), "new\nlines\n");
        assert!(replace("nothing", "demo", "x").is_err());
    }

    #[test]
    fn a_section_takes_the_place_of_the_former() {
        let text = "a\n<!-- x: recorded by `cargo xtask bench x --record` -->\nold\n<!-- /x -->\nb\n";
        let new = with_section(text, "x", "bench x", "new\n\n").unwrap();
        assert_eq!(new, text.replace("old", "\nnew\n"));
        assert_eq!(with_section(&new, "x", "bench x", "new").unwrap(), new);
        assert!(with_section(text, "y", "bench y", "new").is_err());
    }

    #[test]
    fn a_step_is_read_as_written() {
        let line = step_line(std::time::Duration::from_millis(3249), "status");
        assert_eq!((line.as_str(), step(&line)), ("✔    3.2 s  status", Some((3.2, "status"))));
        for other in ["status", "✘    3.2 s  status", "✔ status"] {
            assert_eq!(step(other), None);
        }
    }

    #[test]
    fn the_demo_in_the_readmes_has_every_step_with_its_time() {
        for readme in READMES {
            let text = fs::read_to_string(top().join(readme)).unwrap();
            let transcript = between(&text, "demo").unwrap();
            let steps: Vec<_> = transcript.lines().filter_map(step).map(|(_, words)| words).collect();
            let want = crate::demo::STEPS;
            assert_eq!(steps.len(), want.len(), "{readme}: {steps:?}");
            for (words, beginning) in steps.iter().zip(want) {
                assert!(words.starts_with(beginning), "{readme}: `{words}` does not begin with `{beginning}`");
            }
            assert!(transcript.contains("HTTP 200"), "{readme}: the page never answers");
        }
    }

    #[test]
    fn the_gate_in_the_readmes_has_every_part_with_its_time() {
        for readme in READMES {
            let text = fs::read_to_string(top().join(readme)).unwrap();
            let transcript = between(&text, "test").unwrap();
            let parts: Vec<_> = transcript.lines().filter_map(step).map(|(_, words)| words).collect();
            for part in crate::test::PARTS {
                assert!(parts.iter().any(|words| words.starts_with(part)), "{readme}: no `{part}` in {parts:?}");
            }
        }
    }
}
