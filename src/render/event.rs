//! Everything a run of `fix` has to say while it runs, as data; one line each on stderr.

use std::time::Duration;

use super::plan;
use super::style::{Paint, Style};
use super::width::{WIDTH, cells, wrap};
use super::{diagnosis, evidence};
use crate::model::{Act, Finding, ObjectRef, Severity, Step, Text, Withheld};

/// How loud an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// What a reboot means to a forward that is left running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reboot {
    /// systemd starts it again.
    Outlived,
    /// It ends there. `keep` is the command that makes it stay, where that can be had on this machine.
    Ends { keep: Option<String> },
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    // Looking.
    /// Before the first look.
    Looking {
        targets: String,
    },
    /// A rollout or a fresh start is under way; nothing is called broken before it had its time.
    Waiting {
        object: ObjectRef,
        limit: Duration,
    },
    Found {
        finding: Finding,
    },
    NothingToDo {
        target: String,
    },

    // Changing.
    StepStarted {
        number: usize,
        of: usize,
        step: Step,
    },
    StepVerified {
        number: usize,
        of: usize,
        took: Duration,
    },
    /// It was done, but what it should bring did not come.
    StepWithoutEffect {
        number: usize,
        of: usize,
    },
    StepFailed {
        number: usize,
        of: usize,
        reason: Text,
    },
    Reverted {
        number: usize,
        of: usize,
    },
    RevertFailed {
        number: usize,
        of: usize,
        step: Step,
        reason: Text,
    },
    Withheld {
        withheld: Withheld,
    },
    /// Ctrl-C came while a step was under way.
    Finishing,

    // What came of it.
    Reachable {
        target: String,
        url: String,
    },
    /// The page answers by our own forward; the repair is still to come or was not possible.
    ReachableByForward {
        target: String,
        url: String,
    },
    ReachableHereOnly {
        target: String,
        url: String,
    },
    Unreachable {
        target: String,
    },
    /// A forward stays behind, to take over when the NodePort fails again.
    Standby {
        id: String,
        reboot: Reboot,
    },
    /// A forward of ours carries the page now.
    Carrying {
        id: String,
        reboot: Reboot,
    },
    /// The page answers on this node; whether it does from outside, only the cloud's firewall knows.
    AnswersHere {
        port: u16,
    },
    /// How to take this run back.
    UndoWith {
        id: String,
    },

    // Undo.
    Undoing {
        id: String,
        steps: usize,
    },
    UndoMayBreak {
        target: String,
    },
    Undone {
        step: Step,
    },
    /// Somebody else changed the field since.
    UndoRefused {
        step: Step,
        reason: Text,
    },
    /// The journal's last line was cut off; everything before it counts.
    JournalCutOff {
        id: String,
    },
}

impl Event {
    /// How loud it is.
    pub fn level(&self) -> Level {
        match self {
            Event::Found { finding } => match finding.severity {
                Severity::Error => Level::Error,
                Severity::Warning => Level::Warning,
                Severity::Info => Level::Info,
            },
            Event::StepFailed { .. } | Event::RevertFailed { .. } | Event::Unreachable { .. } => Level::Error,
            Event::StepWithoutEffect { .. }
            | Event::Withheld { .. }
            | Event::ReachableHereOnly { .. }
            | Event::UndoMayBreak { .. }
            | Event::UndoRefused { .. }
            | Event::JournalCutOff { .. } => Level::Warning,
            _ => Level::Info,
        }
    }

    /// Its lines: the level's mark, the sentence, broken for a terminal.
    pub fn lines(&self, style: &Style) -> Vec<String> {
        let (paint, mark) = match self.level() {
            Level::Info => (Paint::Info, Text::new("ui.level.info")),
            Level::Warning => (Paint::Warning, Text::new("ui.level.warning")),
            Level::Error => (Paint::Error, Text::new("ui.level.error")),
        };
        let mark = style.say(&mark);
        let mut lines = wrap(&format!("{mark} "), &self.sentence(style), WIDTH);
        if let Some(rest) = lines.first().and_then(|l| l.strip_prefix(&mark)) {
            lines[0] = format!("{}{rest}", style.paint(paint, &mark));
        }
        let indent = " ".repeat(cells(&mark) + 1);
        if let Event::Withheld { withheld } = self {
            lines.extend(wrap(&indent, &style.say(&withheld.why), WIDTH));
            lines.extend(plan::command_lines(style, &indent, &withheld.step));
        }
        // A command stands on a line of its own and is never broken: it is copied.
        lines.extend(self.command().map(|command| format!("{indent}{command}")));
        if let Event::Standby { reboot, .. } | Event::Carrying { reboot, .. } = self {
            let (text, command) = match reboot {
                Reboot::Outlived => return lines,
                Reboot::Ends { keep: None } => (Text::new("event.ends_with_reboot"), None),
                Reboot::Ends { keep } => (Text::new("event.keep_over_reboot"), keep.as_ref()),
            };
            lines.extend(wrap(&indent, &style.say(&text), WIDTH));
            lines.extend(command.map(|command| format!("{indent}{command}")));
        }
        lines
    }

    /// What a person may run in answer.
    fn command(&self) -> Option<String> {
        match self {
            Event::RevertFailed { step, .. } | Event::UndoRefused { step, .. } => Some(step.undo.clone()),
            Event::Standby { id, .. } | Event::Carrying { id, .. } => {
                Some(format!("kubectl bookaccess forward stop {id}"))
            }
            Event::UndoWith { id } => Some(format!("kubectl bookaccess fix --undo {id}")),
            _ => None,
        }
    }

    fn sentence(&self, style: &Style) -> String {
        match self {
            Event::Found { finding } => format!("{}: {}", finding.code, diagnosis::title(style, finding)),
            Event::StepStarted { number, of, step } => format!("[{number}/{of}] {}", plan::does(style, step)),
            Event::Undone { step } => plan::undoes(style, step),
            Event::Withheld { withheld } => plan::does(style, &withheld.step),
            Event::StepFailed { number, of, reason } => {
                let text = Text::new("event.step_failed").with("number", number).with("of", of);
                format!("{} {}", style.say(&text), style.say(reason))
            }
            Event::RevertFailed { number, of, reason, .. } => {
                let text = Text::new("event.revert_failed").with("number", number).with("of", of);
                format!("{} {}", style.say(reason), style.say(&text))
            }
            Event::UndoRefused { step, reason } => {
                let text =
                    Text::new("event.undo_refused").with("object", object(step)).with("reason", style.say(reason));
                style.say(&text)
            }
            other => style.say(&other.text()),
        }
    }

    /// The sentence of those events that need no other renderer.
    fn text(&self) -> Text {
        match self {
            Event::Looking { targets } => Text::new("event.looking").with("targets", targets),
            Event::Waiting { object, limit } => {
                Text::new("event.waiting").with("object", evidence::named(object)).with("seconds", limit.as_secs())
            }
            Event::NothingToDo { target } => Text::new("event.nothing_to_do").with("target", target),
            Event::StepVerified { number, of, took } => Text::new("event.step_verified")
                .with("number", number)
                .with("of", of)
                .with("seconds", format!("{:.1}", took.as_secs_f64())),
            Event::StepWithoutEffect { number, of } => {
                Text::new("event.step_without_effect").with("number", number).with("of", of)
            }
            Event::Reverted { number, of } => Text::new("event.reverted").with("number", number).with("of", of),
            Event::Finishing => Text::new("event.finishing"),
            Event::Reachable { target, url } => Text::new("event.reachable").with("target", target).with("url", url),
            Event::ReachableByForward { target, url } => {
                Text::new("event.reachable_by_forward").with("target", target).with("url", url)
            }
            Event::ReachableHereOnly { target, url } => {
                Text::new("event.reachable_here_only").with("target", target).with("url", url)
            }
            Event::Unreachable { target } => Text::new("event.unreachable").with("target", target),
            Event::Carrying { .. } => Text::new("event.carrying"),
            Event::Standby { .. } => Text::new("event.standby"),
            Event::AnswersHere { port } => Text::new("ui.here_answers").with("ports", format!("{port}/tcp")),
            Event::UndoWith { .. } => Text::new("event.undo_with"),
            Event::Undoing { id, steps } => Text::new("event.undoing").with("id", id).with("steps", steps),
            Event::UndoMayBreak { target } => Text::new("event.undo_may_break").with("target", target),
            Event::JournalCutOff { id } => Text::new("event.journal_cut_off").with("id", id),
            Event::Found { .. }
            | Event::StepStarted { .. }
            | Event::Undone { .. }
            | Event::Withheld { .. }
            | Event::StepFailed { .. }
            | Event::UndoRefused { .. }
            | Event::RevertFailed { .. } => unreachable!("sentence() words these itself"),
        }
    }
}

/// What a step changes, in few words.
fn object(step: &Step) -> String {
    match &step.act {
        Act::Patch { object, .. }
        | Act::DeletePod { object, .. }
        | Act::Create { object, .. }
        | Act::Configure { object, .. } => evidence::named(object),
        Act::Node { node, .. } => ObjectRef::cluster("Node", node).to_string(),
        Act::Wake { .. } | Act::Forward { .. } | Act::Tell => step.target.clone(),
    }
}
