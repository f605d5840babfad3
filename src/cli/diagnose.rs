//! The verb `diagnose`: look, judge, say. It changes nothing, but for the pod that `--probe-pod` asks for.

use std::time::Duration;

use super::args::{DiagnoseArgs, Globals, Output};
use super::{fix, output, scope};
use crate::check;
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::observe;
use crate::plan::{self, Policy};
use crate::render::json::Document;
use crate::render::{self, Style};

/// What is only seconds old is given so long to come up before it is judged.
const SETTLE: Duration = Duration::from_secs(5);

/// Diagnoses the targets, or a Snapshot from a file.
///
/// # Errors
/// Where nothing can be looked at; a finding is none.
pub async fn run(globals: Globals, args: DiagnoseArgs) -> Result<Exit, ExpectedError> {
    let snapshot = match &args.from {
        Some(file) => observe::file::read(file)?,
        None => {
            let field = scope::enter(&globals, &args.targets).await?;
            let mut snapshot = scope::settled(&field, SETTLE, None, |_| {}).await;
            if args.probe_pod {
                observe::probe_pod::look(&field.cluster, &mut snapshot).await;
            }
            snapshot
        }
    };
    // What is judged is what the file holds, so that both say the same.
    let snapshot = match &args.save {
        Some(file) => {
            let fit = observe::redact::redact(snapshot);
            observe::file::save(&fit, file)?;
            fit
        }
        None => snapshot,
    };
    let facts = Facts::derive(&snapshot);
    let report = check::run(&facts);
    // What fix would do with everything granted: each remedy with its command and its inverse.
    let policy = Policy { fallback: true, ..Policy::default() };
    let plan = plan::plan(&facts, &report.findings, &policy);
    let view = render::Diagnosis::of(&facts, &report, plan);
    let exit = if fix::is_broken(&facts, &report) { Exit::Problem } else { Exit::Ok };
    let style = Style {
        locale: globals.locale,
        color: output::colors_stdout(globals.color),
        wide: globals.output == Output::Wide,
    };
    output::result(|out| match globals.output {
        Output::Json => Document::diagnosis(&view, exit).write_json(out),
        Output::Yaml => Document::diagnosis(&view, exit).write_yaml(out),
        Output::Text | Output::Wide => render::diagnosis::write(&style, &view, out),
    })?;
    // A large cluster's takes long to take apart, and the process ends.
    std::mem::forget(snapshot);
    Ok(exit)
}
