//! `fix --list`: past fixes, also those made on other machines.

use super::super::args::{FixArgs, Globals, Output};
use super::super::output;
use super::Progress;
use super::undo::namespaces;
use crate::apply::{self, Listed, State, Where};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::observe;
use crate::render::fixes::{FixRow, FixState};
use crate::render::json::Document;
use crate::render::plan::action_name;
use crate::render::{self, Style};

/// Prints the list.
///
/// # Errors
/// Where the cluster is not reached.
pub async fn run(globals: &Globals, args: &FixArgs) -> Result<Exit, ExpectedError> {
    let cluster = observe::connect(&globals.connection).await?;
    let namespaces = namespaces(globals, args, &cluster).await;
    let rows: Vec<FixRow> = apply::list(&cluster, &namespaces).await.into_iter().map(row).collect();
    let style = Style { color: output::colors_stdout(globals.color), ..Progress::new(globals).style };
    output::result(|out| match globals.output {
        Output::Json => Document::fixes(&rows, Exit::Ok).write_json(out),
        Output::Yaml => Document::fixes(&rows, Exit::Ok).write_yaml(out),
        Output::Text | Output::Wide => render::fixes::write(&style, &rows, jiff::Timestamp::now(), out),
    })?;
    Ok(Exit::Ok)
}

fn row(listed: Listed) -> FixRow {
    FixRow {
        id: listed.id,
        at: listed.at.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        target: listed.targets.join(","),
        actions: listed.steps.into_iter().map(action_name).collect(),
        by: match listed.place {
            Where::Here => "-".to_owned(),
            Where::Elsewhere { host } => host,
            Where::OtherCluster { .. } => "another cluster".to_owned(),
        },
        state: match listed.state {
            State::Active => FixState::InPlace,
            State::Undone => FixState::Undone,
            State::Failed => FixState::Unfinished,
        },
    }
}
