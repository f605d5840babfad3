//! How each target stands when `fix` ends, in words and as an exit code.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::super::scope::errors;
use super::fallback;
use crate::check::Report;
use crate::exit::Exit;
use crate::facts::{Facts, TargetFacts};
use crate::model::{Severity, Withheld};
use crate::render::json::{Access, FixedTarget};
use crate::render::{Event, Reboot, Style, view};
use crate::supervise::{Started, Status};

/// One target at the end.
pub struct Ended {
    pub fixed: FixedTarget,
    pub port: Option<u16>,
    /// What a reboot means to the forward that is left running.
    pub reboot: Option<Reboot>,
    /// Whether it counts for the exit code: a ClusterIP Grafana that nobody asked for does not.
    pub counts: bool,
}

/// Whether something is broken that counts.
pub fn is_broken(facts: &Facts<'_>, report: &Report) -> bool {
    facts.targets.iter().any(|t| counts(t, report) && (is_blamed(t, report) || t.reach.answers == Some(false)))
}

/// Whether an error was found. A page that answers on another port than browsers dial has one as well.
fn is_blamed(target: &TargetFacts<'_>, report: &Report) -> bool {
    errors(report, &target.target.to_string()).next().is_some()
}

/// Whether a target counts for the exit code: one that was named, and one with anything worse than a note.
pub fn counts(target: &TargetFacts<'_>, report: &Report) -> bool {
    let name = target.target.to_string();
    let mut mine = report.findings.iter().filter(|f| f.target == name).peekable();
    target.target.named || mine.peek().is_none() || mine.any(|f| f.severity > Severity::Info)
}

/// Looks at one target a last time: at its address, else by a forward of ours.
pub async fn of(
    facts: &Facts<'_>,
    target: &TargetFacts<'_>,
    report: &Report,
    standing: Option<(Status, Reboot)>,
    started: Option<Started>,
    acted: bool,
) -> Ended {
    let (standing, reboot) = standing.unzip();
    let here = leads_here(facts, target);
    let mut url = view::url(target);
    let access = if target.reach.answers == Some(true) && !is_blamed(target, report) {
        if acted { Access::Restored } else { Access::Unchanged }
    } else {
        let carried = match &standing {
            Some(status) => carried(status, target).await,
            None => None,
        };
        match carried {
            Some(at) if here && !at.ip().is_loopback() => Access::Forwarded,
            Some(at) => {
                url = started
                    .as_ref()
                    .and_then(|s| s.urls.first().cloned())
                    .or_else(|| Some(format!("http://{at}{}", target.target.path)));
                Access::LocalOnly
            }
            None if target.reach.answers.is_none() && !is_blamed(target, report) => Access::Unchanged,
            None => Access::None,
        }
    };
    let fixed = FixedTarget { target: target.target.to_string(), url, access, standby: standing.map(|s| s.report.id) };
    Ended { fixed, port: target.reach.port, reboot, counts: counts(target, report) }
}

/// Whether the address that a browser should dial leads to the node this runs on.
pub fn leads_here(facts: &Facts<'_>, target: &TargetFacts<'_>) -> bool {
    target.reach.node.is_some() && target.reach.node == facts.snapshot.stand.node.as_deref()
}

/// Where a forward of ours gives the right page.
pub async fn carried(status: &Status, target: &TargetFacts<'_>) -> Option<SocketAddr> {
    for at in &status.report.listen {
        if fallback::carries(*at, target.target).await {
            return Some(*at);
        }
    }
    None
}

/// The worst of those that count.
pub fn exit(ended: &[Ended]) -> Exit {
    let of = |access| match access {
        Access::Restored | Access::Forwarded | Access::Unchanged => Exit::Ok,
        Access::LocalOnly => Exit::LocalOnly,
        Access::None => Exit::Problem,
    };
    let all: Vec<Exit> = ended.iter().filter(|e| e.counts).map(|e| of(e.fixed.access)).collect();
    [Exit::Problem, Exit::LocalOnly].into_iter().find(|exit| all.contains(exit)).unwrap_or(Exit::Ok)
}

/// The result for people.
///
/// # Errors
/// Those of the writer.
pub fn write(
    style: &Style,
    facts: &Facts<'_>,
    ended: &[Ended],
    withheld: &[Withheld],
    id: Option<&str>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut events = Vec::new();
    for one in ended {
        let FixedTarget { target, url, access, .. } = &one.fixed;
        let (target, url) = (target.clone(), url.clone().unwrap_or_default());
        match access {
            Access::Unchanged if !one.counts => {}
            Access::Restored => events.push(Event::Reachable { target, url }),
            Access::Forwarded => events.push(Event::ReachableByForward { target, url }),
            Access::LocalOnly => events.push(Event::ReachableHereOnly { target, url }),
            Access::Unchanged => {
                events.push(Event::NothingToDo { target: target.clone() });
                events.push(Event::Reachable { target, url });
            }
            Access::None => events.push(Event::Unreachable { target }),
        }
    }
    events.extend(withheld.iter().map(|w| Event::Withheld { withheld: w.clone() }));
    events.extend(ended.iter().filter_map(|e| {
        let (id, reboot) = (e.fixed.standby.clone()?, e.reboot.clone()?);
        Some(match e.fixed.access {
            Access::Forwarded | Access::LocalOnly => Event::Carrying { id, reboot },
            _ => Event::Standby { id, reboot },
        })
    }));
    events.extend(id.map(|id| Event::UndoWith { id: id.to_owned() }));
    if facts.snapshot.stand.node.is_some() && exit(ended) == Exit::Ok {
        events.extend(ended.iter().filter(|e| e.counts).filter_map(|e| Some(Event::AnswersHere { port: e.port? })));
    }
    for line in events.iter().flat_map(|e| e.lines(style)) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
