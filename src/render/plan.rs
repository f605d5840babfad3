//! A plan for people: what will be done, in order, by which command, and how each is taken back.

use std::io::{self, Write};

use super::style::{Paint, Style};
use super::width::{WIDTH, wrap};
use crate::model::{Act, ActionName, Allow, Plan, Step, Text, Tier, Withheld};

/// Writes the plan. The dry run and the question before a fix show the same.
///
/// # Errors
/// Those of the writer.
pub fn write(style: &Style, plan: &Plan, out: &mut impl Write) -> io::Result<()> {
    // A step that can only be told may stand among the steps or, for want of any grant, among those withheld.
    let (told, taken): (Vec<&Step>, Vec<&Step>) = plan.steps.iter().partition(|s| s.act == Act::Tell);
    let (unasked, withheld): (Vec<&Withheld>, Vec<&Withheld>) =
        plan.withheld.iter().partition(|w| w.step.act == Act::Tell && w.needs.is_none());
    let told: Vec<&Step> = told.into_iter().chain(unasked.into_iter().map(|w| &w.step)).collect();
    if taken.is_empty() && told.is_empty() && withheld.is_empty() {
        return writeln!(out, "{}", style.say(&Text::new("render.plan.empty")));
    }
    if !taken.is_empty() {
        heading(style, Text::new("render.plan.steps").with("count", taken.len()), out)?;
    }
    for (at, step) in taken.iter().enumerate() {
        write_step(style, &format!("{:>2}. ", at + 1), step, out)?;
        commands(style, "    ", step, out)?;
    }
    if !told.is_empty() {
        heading(style, Text::new("render.plan.told"), out)?;
    }
    for step in told {
        write_step(style, "  - ", step, out)?;
        commands(style, "    ", step, out)?;
    }
    if !withheld.is_empty() {
        heading(style, Text::new("render.plan.withheld"), out)?;
    }
    for withheld in withheld {
        write_withheld(style, withheld, out)?;
    }
    for note in &plan.notes {
        let lead = format!("{}: ", style.say(&Text::new("render.note.remark")));
        for line in wrap(&lead, &style.say(note), WIDTH) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn heading(style: &Style, text: Text, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", style.paint(Paint::Strong, &style.say(&text)))
}

fn write_step(style: &Style, lead: &str, step: &Step, out: &mut impl Write) -> io::Result<()> {
    let about = Text::new("render.plan.about")
        .with("tier", style.say(&tier(step.tier)))
        .with("code", step.cause)
        .with("target", &step.target);
    let text = format!("{} {}", does(style, step), style.say(&about));
    for line in wrap(lead, &text, WIDTH) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn write_withheld(style: &Style, withheld: &Withheld, out: &mut impl Write) -> io::Result<()> {
    write_step(style, "  - ", &withheld.step, out)?;
    let why = format!("    {}: ", style.say(&Text::new("render.note.reason")));
    for line in wrap(&why, &style.say(&withheld.why), WIDTH) {
        writeln!(out, "{line}")?;
    }
    if let Some(allow) = withheld.needs {
        let text = Text::new("render.plan.allow").with("grant", grant(allow));
        writeln!(out, "    {}", style.paint(Paint::Warning, &style.say(&text)))?;
    }
    commands(style, "    ", &withheld.step, out)
}

/// The command and its inverse, unbroken, for copying.
pub fn commands(style: &Style, indent: &str, step: &Step, out: &mut impl Write) -> io::Result<()> {
    command_lines(style, indent, step).try_for_each(|line| writeln!(out, "{line}"))
}

/// The lines of [`commands`]; a command of several lines is one of them.
pub fn command_lines(style: &Style, indent: &str, step: &Step) -> impl Iterator<Item = String> {
    let both = [(Text::new("render.note.run"), &step.command), (Text::new("render.note.undo"), &step.undo)];
    both.into_iter().filter(|(_, command)| !command.is_empty()).map(move |(label, command)| {
        let label = style.paint(Paint::Faint, &format!("{}:", style.say(&label)));
        format!("{indent}{label} {}", command.replace('\n', &format!("\n{indent}")))
    })
}

/// What a step does, as its action says it.
pub fn does(style: &Style, step: &Step) -> String {
    action(style, step, "does")
}

/// What taking a step back does.
pub fn undoes(style: &Style, step: &Step) -> String {
    action(style, step, "undoes")
}

fn action(style: &Style, step: &Step, part: &str) -> String {
    let args = step.args.iter().map(|(name, value)| (name.clone().into(), value.clone())).collect();
    style.say(&Text { key: format!("action.{}.{part}", action_name(step.name)).into(), args })
}

/// The name as locale files and JSON spell it: `service-node-port`.
pub fn action_name(name: ActionName) -> String {
    match serde_json::to_value(name) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// How deep a step reaches, in words.
fn tier(tier: Tier) -> Text {
    match tier {
        Tier::T0 => Text::new("render.plan.tier.told"),
        Tier::T1 => Text::new("render.plan.tier.adds"),
        Tier::T2 => Text::new("render.plan.tier.service"),
        Tier::T3 => Text::new("render.plan.tier.workload"),
        Tier::T4 => Text::new("render.plan.tier.system"),
        Tier::T5 => Text::new("render.plan.tier.node"),
        Tier::T6 => Text::new("render.plan.tier.cloud"),
    }
}

/// As `--allow` takes it.
pub fn grant(allow: Allow) -> &'static str {
    match allow {
        Allow::System => "system",
        Allow::Node => "node",
        Allow::Policy => "policy",
        Allow::Workload => "workload",
    }
}
