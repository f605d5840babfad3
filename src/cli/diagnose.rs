//! The verb `diagnose`: look, judge, say. It changes nothing.

use super::args::{DiagnoseArgs, Globals};
use super::scope;
use crate::check;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::model::Severity;
use crate::observe;

/// Diagnoses the targets, or a Snapshot from a file.
///
/// # Errors
/// Where nothing can be looked at; a finding is none.
pub async fn run(globals: Globals, args: DiagnoseArgs) -> Result<Exit, ExpectedError> {
    let snapshot = match &args.from {
        Some(file) => observe::file::read(file)?,
        None => {
            let field = scope::enter(&globals, &args.targets).await?;
            observe::look(&field.cluster, &field.targets, &field.wanted).await
        }
    };
    if let Some(file) = &args.save {
        observe::file::save(&snapshot, file)?;
    }
    let facts = Facts::derive(&snapshot);
    let report = check::run(&facts);
    let broken = report.findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if broken { Exit::Problem } else { Exit::Ok })
}
