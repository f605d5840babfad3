//! `fix --list`: past fixes, also those made on other machines.

use super::super::args::{FixArgs, Globals, Output};
use super::super::output;
use super::Progress;
use super::undo::namespaces;
use crate::apply;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::observe;
use crate::render::json::Document;
use crate::render::{self, Style};

/// Prints the list.
///
/// # Errors
/// Where the cluster is not reached.
pub async fn run(globals: &Globals, args: &FixArgs) -> Result<Exit, ExpectedError> {
    let cluster = observe::connect(&globals.connection).await?;
    let namespaces = namespaces(globals, args, &cluster).await;
    let rows = apply::list(&cluster, &namespaces).await;
    let style = Style { color: output::colors_stdout(globals.color), ..Progress::new(globals).style };
    output::result(|out| match globals.output {
        Output::Json => Document::fixes(&rows, Exit::Ok).write_json(out),
        Output::Yaml => Document::fixes(&rows, Exit::Ok).write_yaml(out),
        Output::Text | Output::Wide => render::fixes::write(&style, &rows, jiff::Timestamp::now(), out),
    })?;
    Ok(Exit::Ok)
}
