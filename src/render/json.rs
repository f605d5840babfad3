//! Documents for programs: English, versioned, additive. The committed schema describes every field.

use std::io::{self, Write};

use serde::Serialize;

use super::status::Row;
use super::style::Style;
use super::view::{Diagnosis, TargetView};
use super::{diagnosis, plan};
use crate::apply::list::Listed;
use crate::check::Skipped;
use crate::exit::Exit;
use crate::i18n::Locale;
use crate::model::{Allow, Finding, Gap, Plan, Step, Withheld};

/// Of every document. A field may be added under the same version; none is renamed or removed.
pub const API_VERSION: &str = "bookaccess.dev/v1alpha1";

/// The schema of all documents.
pub const SCHEMA: &str = include_str!("schema/v1alpha1.json");

/// Messages inside documents are English, whatever language the reader speaks.
const ENGLISH: Style = Style { locale: Locale::En, color: false, wide: false };

/// One document: `apiVersion`, `kind`, and its own fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<'a> {
    pub api_version: &'static str,
    #[serde(flatten)]
    pub body: Body<'a>,
}

/// The kinds of documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum Body<'a> {
    Diagnosis {
        /// kubectl on Windows turns every failure into 1; here it is whole.
        exit_code: u8,
        targets: &'a [TargetView],
        findings: Vec<FindingView<'a>>,
        #[serde(flatten)]
        plan: PlanView<'a>,
        skipped: &'a [Skipped],
        gaps: &'a [Gap],
    },
    Plan {
        exit_code: u8,
        #[serde(flatten)]
        plan: PlanView<'a>,
    },
    FixReport {
        exit_code: u8,
        /// None where nothing was changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        targets: &'a [FixedTarget],
        steps: Vec<StepReport<'a>>,
        withheld: Vec<WithheldView<'a>>,
    },
    FixList {
        exit_code: u8,
        fixes: &'a [Listed],
    },
    Status {
        exit_code: u8,
        targets: &'a [Row],
    },
}

/// A finding with its title.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingView<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    message: String,
}

/// The steps of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanView<'a> {
    steps: Vec<StepView<'a>>,
    withheld: Vec<WithheldView<'a>>,
    notes: Vec<String>,
}

/// A step with what it does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView<'a> {
    #[serde(flatten)]
    step: &'a Step,
    message: String,
}

/// A step that is not taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WithheldView<'a> {
    step: StepView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Allow>,
    reason: String,
}

/// How a target stands after a fix.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FixedTarget {
    pub target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub access: Access,
    /// Id of the forward that was left running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
}

/// How the page is reached after a fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// At its address, around our own forward.
    Restored,
    /// At its address, by our forward.
    Forwarded,
    /// From this machine only.
    LocalOnly,
    /// It was reachable before; nothing was done.
    Unchanged,
    /// Not at all.
    None,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StepOutcome {
    /// Done, and what it should bring came.
    Verified,
    /// Done without effect, and taken back.
    Reverted,
    /// Could not be done; nothing was changed.
    Failed,
    /// Done without effect, and could not be taken back.
    RevertFailed,
    /// Only told.
    Told,
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport<'a> {
    #[serde(flatten)]
    step: StepView<'a>,
    result: StepOutcome,
}

impl<'a> Document<'a> {
    fn new(body: Body<'a>) -> Self {
        Self { api_version: API_VERSION, body }
    }

    /// Of `diagnose`.
    pub fn diagnosis(view: &'a Diagnosis, exit: Exit) -> Self {
        let finding = |finding| FindingView { message: diagnosis::title(&ENGLISH, finding), finding };
        Self::new(Body::Diagnosis {
            exit_code: exit as u8,
            targets: &view.targets,
            findings: view.findings.iter().map(finding).collect(),
            plan: plan_view(&view.plan),
            skipped: &view.skipped,
            gaps: &view.gaps,
        })
    }

    /// Of `fix --dry-run`.
    pub fn plan(plan: &'a Plan, exit: Exit) -> Self {
        Self::new(Body::Plan { exit_code: exit as u8, plan: plan_view(plan) })
    }

    /// Of `fix`.
    pub fn fix(
        id: Option<&'a str>,
        targets: &'a [FixedTarget],
        steps: &'a [(Step, StepOutcome)],
        withheld: &'a [Withheld],
        exit: Exit,
    ) -> Self {
        Self::new(Body::FixReport {
            exit_code: exit as u8,
            id,
            targets,
            steps: steps.iter().map(|(step, result)| StepReport { step: step_view(step), result: *result }).collect(),
            withheld: withheld.iter().map(withheld_view).collect(),
        })
    }

    /// Of `fix --list`.
    pub fn fixes(fixes: &'a [Listed], exit: Exit) -> Self {
        Self::new(Body::FixList { exit_code: exit as u8, fixes })
    }

    /// Of `status`.
    pub fn status(targets: &'a [Row], exit: Exit) -> Self {
        Self::new(Body::Status { exit_code: exit as u8, targets })
    }

    /// Writes it as JSON, indented, with a line feed at its end.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes it as YAML.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_yaml(&self, out: &mut impl Write) -> io::Result<()> {
        // By way of JSON, so that both say the same to the letter.
        let value = serde_json::to_value(self)?;
        out.write_all(serde_saphyr::to_string(&value).map_err(io::Error::other)?.as_bytes())
    }
}

fn plan_view(plan: &Plan) -> PlanView<'_> {
    PlanView {
        steps: plan.steps.iter().map(step_view).collect(),
        withheld: plan.withheld.iter().map(withheld_view).collect(),
        notes: plan.notes.iter().map(|note| ENGLISH.say(note)).collect(),
    }
}

fn step_view(step: &Step) -> StepView<'_> {
    StepView { message: plan::does(&ENGLISH, step), step }
}

fn withheld_view(withheld: &Withheld) -> WithheldView<'_> {
    WithheldView { step: step_view(&withheld.step), needs: withheld.needs, reason: ENGLISH.say(&withheld.why) }
}
