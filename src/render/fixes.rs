//! `fix --list`: past fixes, also those made elsewhere.

use std::io::{self, Write};

use jiff::Timestamp;

use super::plan::action_name;
use super::status::{age, dash};
use super::style::Style;
use super::width::table;
use crate::apply::list::{Listed, State, Where};
use crate::model::Text;

/// Writes the list in the order given.
///
/// # Errors
/// Those of the writer.
pub fn write(style: &Style, fixes: &[Listed], now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    if fixes.is_empty() {
        return writeln!(out, "{}", style.say(&Text::new("render.fixes.none")));
    }
    let head = ["ID", "AGE", "TARGET", "STATE", "MADE-ON", "STEPS"].map(str::to_owned).to_vec();
    let line = |fix: &Listed| {
        let state = match fix.state {
            State::Active => "active",
            State::Undone => "undone",
            State::Failed => "failed",
        };
        let place = match &fix.place {
            Where::Here => "this machine".to_owned(),
            Where::Elsewhere { host } => host.clone(),
            Where::OtherCluster { .. } => "another cluster".to_owned(),
        };
        let steps: Vec<String> = fix.steps.iter().map(|name| action_name(*name)).collect();
        vec![
            fix.id.clone(),
            dash(fix.at.map(|at| age(at, now))),
            fix.targets.join(","),
            state.to_owned(),
            place,
            dash(Some(steps.join(","))),
        ]
    };
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(fixes.iter().map(line)).collect();
    for line in table(&lines) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
