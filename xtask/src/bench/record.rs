//! docs/performance.md: its sections are written by the benches themselves.

use std::fs;

use anyhow::{Context, Result};

use crate::readme::{self, top};

/// The document, and the folder of what belongs to it.
const DOCUMENT: &str = "docs/performance.md";
const BESIDE: &str = "docs/performance";

/// Puts what `cargo xtask bench NAME` saw between the marks of its name.
pub fn section(name: &str, markdown: &str) -> Result<()> {
    readme::section(DOCUMENT, name, &format!("bench {name}"), markdown)
}

/// Writes a file beside the document.
pub fn beside(name: &str, content: &str) -> Result<()> {
    let folder = top().join(BESIDE);
    fs::create_dir_all(&folder)?;
    let content = format!("{}\n", content.trim_end());
    fs::write(folder.join(name), content).with_context(|| format!("cannot write {BESIDE}/{name}"))
}

/// Reads a file beside the document.
pub fn read_beside(name: &str) -> Result<String> {
    fs::read_to_string(top().join(BESIDE).join(name)).with_context(|| format!("cannot read {BESIDE}/{name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_document_has_the_marks() {
        let text = fs::read_to_string(top().join(DOCUMENT)).unwrap();
        for name in ["diagnose", "forward", "recovery", "size"] {
            readme::marked(&text, name, &format!("bench {name}")).unwrap();
        }
    }
}
