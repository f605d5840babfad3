//! A diagnosis for people: the path with its break, then findings in the manner of rustc, then the verdict.

use std::io::{self, Write};

use super::style::{Paint, Style};
use super::view::{Diagnosis, TargetView};
use super::width::{WIDTH, wrap};
use super::{evidence, path, plan};
use crate::check::path::HopState;
use crate::model::{Confidence, Finding, Gap, GapReason, Severity, Step, Text};

/// Writes the whole diagnosis.
///
/// # Errors
/// Those of the writer.
pub fn write(style: &Style, diagnosis: &Diagnosis, out: &mut impl Write) -> io::Result<()> {
    for target in &diagnosis.targets {
        let url = target.url.as_deref().unwrap_or_default();
        writeln!(out, "{}  {url}", style.paint(Paint::Strong, &target.target))?;
        for line in path::lines(style, "  ", &target.path) {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
        for finding in diagnosis.findings.iter().filter(|f| f.target == target.target) {
            write_finding(style, diagnosis, target, finding, out)?;
            writeln!(out)?;
        }
    }
    for target in &diagnosis.targets {
        verdict(style, diagnosis, target, out)?;
    }
    if let Some(text) = here_answers(diagnosis) {
        for line in wrap("", &style.say(&text), WIDTH) {
            writeln!(out, "{line}")?;
        }
    }
    unseen(style, diagnosis, out)?;
    if diagnosis.findings.iter().any(|f| f.severity == Severity::Error) {
        writeln!(out, "{}", style.say(&Text::new("render.next.fix")))?;
    }
    Ok(())
}

fn write_finding(
    style: &Style,
    diagnosis: &Diagnosis,
    target: &TargetView,
    finding: &Finding,
    out: &mut impl Write,
) -> io::Result<()> {
    let severity = style.say(&severity(finding.severity));
    let head = format!("{severity}[{}]", finding.code);
    let lines = wrap(&format!("{head}: "), &title(style, finding), WIDTH);
    for (at, line) in lines.iter().enumerate() {
        match line.strip_prefix(&head).filter(|_| at == 0) {
            Some(rest) => writeln!(
                out,
                "{}{}",
                style.paint(Style::severity(finding.severity), &head),
                style.paint(Paint::Strong, rest)
            )?,
            None => writeln!(out, "{}", style.paint(Paint::Strong, line))?,
        }
    }
    writeln!(out, "  {} {}", style.paint(Paint::Info, "-->"), evidence::named(&finding.subject))?;
    for piece in &finding.evidence {
        note(style, Text::new("render.note.evidence"), &evidence::sentence(style, &finding.subject, piece), out)?;
    }
    let passed: Vec<String> =
        target.path.iter().filter(|h| h.state == HopState::Ok).map(|h| path::word(style, h.hop)).collect();
    if finding.severity == Severity::Error && !passed.is_empty() {
        note(style, Text::new("render.note.ruled_out"), &passed.join(", "), out)?;
    }
    match finding.confidence {
        Confidence::Certain => {}
        Confidence::Likely => {
            note(style, Text::new("render.note.confidence"), &style.say(&Text::new("render.confidence.likely")), out)?;
        }
        Confidence::Possible => {
            note(
                style,
                Text::new("render.note.confidence"),
                &style.say(&Text::new("render.confidence.possible")),
                out,
            )?;
        }
    }
    if style.wide {
        note(style, Text::new("render.note.why"), &catalogue(style, finding, "why"), out)?;
    }
    let steps = remedies(diagnosis, finding);
    if steps.is_empty() {
        help(style, &catalogue(style, finding, "fix"), out)?;
    }
    for step in steps {
        help(style, &plan::does(style, step), out)?;
        plan::commands(style, "        ", step, out)?;
    }
    Ok(())
}

/// `   = 근거: …`
fn note(style: &Style, label: Text, text: &str, out: &mut impl Write) -> io::Result<()> {
    let lead = format!("   = {}: ", style.say(&label));
    for line in wrap(&lead, text, WIDTH) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn help(style: &Style, text: &str, out: &mut impl Write) -> io::Result<()> {
    let label = style.say(&Text::new("render.note.help"));
    for (at, line) in wrap(&format!("  {label}: "), text, WIDTH).into_iter().enumerate() {
        match line.strip_prefix(&format!("  {label}")).filter(|_| at == 0) {
            Some(rest) => writeln!(out, "  {}{rest}", style.paint(Paint::Good, &label))?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

/// The steps that this finding asked for, those that need a grant included.
fn remedies<'a>(diagnosis: &'a Diagnosis, finding: &Finding) -> Vec<&'a Step> {
    let asked = |step: &&Step| step.target == finding.target && step.cause == finding.code;
    let planned = diagnosis.plan.steps.iter();
    planned.chain(diagnosis.plan.withheld.iter().map(|w| &w.step)).filter(asked).collect()
}

/// The catalogue's title of a finding, with its arguments.
pub fn title(style: &Style, finding: &Finding) -> String {
    catalogue(style, finding, "title")
}

fn catalogue(style: &Style, finding: &Finding, part: &str) -> String {
    let args = finding.args.iter().map(|(name, value)| (name.clone().into(), value.clone())).collect();
    style.say(&Text { key: format!("check.{}.{part}", finding.code).into(), args })
}

fn severity(severity: Severity) -> Text {
    match severity {
        Severity::Error => Text::new("render.severity.error"),
        Severity::Warning => Text::new("render.severity.warning"),
        Severity::Info => Text::new("render.severity.info"),
    }
}

fn verdict(style: &Style, diagnosis: &Diagnosis, target: &TargetView, out: &mut impl Write) -> io::Result<()> {
    let place = target.url.as_deref().unwrap_or(&target.target);
    let (paint, text) = match target.reachable {
        Some(true) => (Paint::Good, Text::new("render.verdict.reachable").with("url", place)),
        Some(false) => (Paint::Error, Text::new("render.verdict.unreachable").with("url", place)),
        None if diagnosis.is_broken(target) => {
            (Paint::Error, Text::new("render.verdict.unreachable").with("url", place))
        }
        None => (Paint::Warning, Text::new("render.verdict.unknown").with("url", place)),
    };
    writeln!(out, "{}", style.paint(paint, &style.say(&text)))?;
    Ok(())
}

/// On a node where all is well: what is left to look at lies before the node.
pub fn here_answers(diagnosis: &Diagnosis) -> Option<Text> {
    let well = |t: &TargetView| t.reachable != Some(false) && !diagnosis.is_broken(t);
    if !diagnosis.on_node || !diagnosis.targets.iter().all(well) {
        return None;
    }
    let answers = diagnosis.targets.iter().filter(|t| t.reachable == Some(true));
    let ports: Vec<String> = answers.filter_map(|t| t.port).map(|port| format!("{port}/tcp")).collect();
    (!ports.is_empty()).then(|| Text::new("ui.here_answers").with("ports", ports.join(", ")))
}

/// What was not looked at: a few words, with `-o wide` one line each and the checks it cost.
fn unseen(style: &Style, diagnosis: &Diagnosis, out: &mut impl Write) -> io::Result<()> {
    if diagnosis.gaps.is_empty() {
        return Ok(());
    }
    let label = style.say(&Text::new("render.note.unseen"));
    if style.wide {
        writeln!(out, "{label}:")?;
        for gap in &diagnosis.gaps {
            for line in wrap("  - ", &evidence::gap(style, gap), WIDTH) {
                writeln!(out, "{line}")?;
            }
        }
        let skipped: Vec<String> = diagnosis.skipped.iter().map(|s| s.code.to_string()).collect();
        if !skipped.is_empty() {
            let text = Text::new("render.note.skipped").with("codes", skipped.join(", "));
            for line in wrap("  ", &style.say(&text), WIDTH) {
                writeln!(out, "{line}")?;
            }
        }
        return Ok(());
    }
    // On a laptop, or without root, the same few inputs are missing every time: one sentence for all of them.
    let standing = |reason: &GapReason| diagnosis.gaps.iter().any(|g| g.reason == *reason);
    let mut remarks = Vec::new();
    if standing(&GapReason::NotOnNode) {
        remarks.push(style.say(&Text::new("render.note.unseen_here")));
    }
    if standing(&GapReason::NotRoot) {
        remarks.push(style.say(&Text::new("render.note.unseen_unprivileged")));
    }
    for line in remarks.iter().flat_map(|remark| wrap("", remark, WIDTH)) {
        writeln!(out, "{}", style.paint(Paint::Faint, &line))?;
    }
    let own = |gap: &&Gap| !matches!(gap.reason, GapReason::NotOnNode | GapReason::NotRoot);
    let mut all: Vec<String> = diagnosis.gaps.iter().filter(own).map(|gap| evidence::gap(style, gap)).collect();
    all.dedup();
    if !all.is_empty() {
        for line in wrap(&format!("{label}: "), &all.join(", "), WIDTH) {
            writeln!(out, "{}", style.paint(Paint::Faint, &line))?;
        }
    }
    Ok(())
}
