//! docs/performance.md: its sections are written by the benches themselves.

use std::fs;

use anyhow::{Context, Result};

use crate::readme::{marked, top};

/// The document, and the folder of what belongs to it.
const DOCUMENT: &str = "docs/performance.md";
const BESIDE: &str = "docs/performance";

/// Puts what `cargo xtask bench NAME` saw between the marks of its name.
pub fn section(name: &str, markdown: &str) -> Result<()> {
    let path = top().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    fs::write(&path, replace(&text, name, markdown)?).with_context(|| format!("cannot write {DOCUMENT}"))
}

/// Writes a file beside the document.
pub fn beside(name: &str, content: &str) -> Result<()> {
    let folder = top().join(BESIDE);
    fs::create_dir_all(&folder)?;
    let content = format!("{}\n", content.trim_end());
    fs::write(folder.join(name), content).with_context(|| format!("cannot write {BESIDE}/{name}"))
}

fn replace(text: &str, name: &str, markdown: &str) -> Result<String> {
    let old = marked(text, name, &format!("bench {name}")).context(DOCUMENT)?;
    Ok(format!("{}\n{}\n\n{}", &text[..old.start], markdown.trim(), &text[old.end..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_former() {
        let text = "a\n<!-- x: recorded by `cargo xtask bench x --record` -->\nold\n<!-- /x -->\nb\n";
        let new = replace(text, "x", "new\n\n").unwrap();
        assert_eq!(new, text.replace("old", "\nnew\n"));
        assert_eq!(replace(&new, "x", "new").unwrap(), new);
        assert!(replace(text, "y", "new").is_err());
    }

    #[test]
    fn the_document_has_the_marks() {
        let text = fs::read_to_string(top().join(DOCUMENT)).unwrap();
        replace(&text, "forward", "x").unwrap();
        replace(&text, "recovery", "x").unwrap();
    }
}
