//! The fault matrix as a table, and its place in docs/fault-matrix.md.

use anyhow::{Context, Result};
use e2e::matrix::Played;

use crate::provider::native::plan::ProxyMode;
use crate::readme;

const DOCUMENT: &str = "docs/fault-matrix.md";

/// A Markdown table of the results, one JSON object a line.
pub fn table(results: &str) -> Result<String> {
    let rows: Vec<Played> =
        results.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("the file of results")?;
    let mut text = String::from(
        "| part | fault | expected | found | diagnosed | page again | carried by | end | undo equal |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &rows {
        let page = row.page_ms.map_or_else(|| "–".to_owned(), seconds);
        let found = if row.found.is_empty() { "–".to_owned() } else { row.found.join(", ") };
        let expected = if row.expected.is_empty() { "–" } else { &row.expected };
        let (line, name, path, end) = (&row.line, &row.name, &row.path, &row.end);
        let (diagnosed, undone) = (seconds(row.diagnosed_ms), if row.undone { "yes" } else { "no" });
        text +=
            &format!("| {line} | {name} | {expected} | {found} | {diagnosed} | {page} | {path} | {end} | {undone} |\n");
    }
    Ok(text)
}

fn seconds(milliseconds: u128) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

/// Puts the table of one mode into the document.
pub fn record(mode: ProxyMode, version: &str, table: &str) -> Result<()> {
    let mode = mode.name();
    let command = format!("e2e --suite faults --proxy-mode {mode}");
    readme::section(
        DOCUMENT,
        mode,
        &command,
        &format!("Provider native, Kubernetes {version}, kube-proxy: {mode}.\n\n{table}"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_is_a_line() {
        let row = Played {
            line: "Service".to_owned(),
            name: "ClusterIP".to_owned(),
            expected: "BA1002".to_owned(),
            found: vec!["BA1002".to_owned()],
            diagnosed_ms: 240,
            page_ms: Some(1300),
            path: "nodePort".to_owned(),
            end: "repaired".to_owned(),
            undone: true,
            ..Played::default()
        };
        let table = table(&serde_json::to_string(&row).unwrap()).unwrap();
        let last = "| Service | ClusterIP | BA1002 | BA1002 | 0.2 s | 1.3 s | nodePort | repaired | yes |\n";
        assert!(table.ends_with(last), "{table}");
        assert!(super::table("no JSON").is_err());
    }

    #[test]
    fn the_document_has_the_marks() {
        let text = std::fs::read_to_string(readme::top().join(DOCUMENT)).unwrap();
        for mode in ["iptables", "nftables"] {
            readme::marked(&text, mode, &format!("e2e --suite faults --proxy-mode {mode}")).unwrap();
        }
    }
}
