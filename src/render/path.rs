//! The path as a line of hops, the break marked underneath as rustc marks a place in a source.

use super::style::{Paint, Style};
use super::width::{WIDTH, cells};
use crate::check::Hop;
use crate::check::path::{HopState, PathHop};
use crate::model::Text;

/// The lines of one path, each beginning with `indent`.
pub fn lines(style: &Style, indent: &str, path: &[PathHop]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = indent.to_owned();
    // Width of `line` without its colours, and where the break stands in it.
    let mut taken = cells(indent);
    let mut mark: Option<(usize, usize)> = None;
    let mut behind = false;
    for (at, hop) in path.iter().enumerate() {
        let arrow = match (at, hop.state) {
            (0, _) => "",
            (_, HopState::Ok) => " -> ",
            (_, HopState::Broken) => " -x-> ",
            (_, HopState::Unknown) => " -?-> ",
        };
        let name = name(style, hop);
        if at > 0 && taken + cells(arrow) + cells(&name) > WIDTH {
            flush(style, &mut lines, std::mem::replace(&mut line, indent.to_owned()), mark.take());
            taken = cells(indent);
        }
        let arrow = if taken == cells(indent) { arrow.trim_start() } else { arrow };
        let paint = match hop.state {
            HopState::Broken => Some(Paint::Error),
            HopState::Unknown => Some(Paint::Faint),
            HopState::Ok if behind => Some(Paint::Faint),
            HopState::Ok => None,
        };
        let dress = |text: &str| paint.map_or_else(|| text.to_owned(), |p| style.paint(p, text));
        line.push_str(&dress(arrow));
        line.push_str(&dress(&name));
        if hop.state == HopState::Broken {
            mark = Some((taken + cells(arrow), cells(&name)));
            behind = true;
        }
        taken += cells(arrow) + cells(&name);
    }
    if !path.is_empty() {
        flush(style, &mut lines, line, mark);
    }
    lines
}

fn flush(style: &Style, lines: &mut Vec<String>, line: String, mark: Option<(usize, usize)>) {
    lines.push(line);
    let Some((column, length)) = mark else { return };
    let words = style.say(&Text::new("render.path.break"));
    let carets = "^".repeat(length);
    let beside = format!("{}{carets} {words}", " ".repeat(column));
    if cells(&beside) <= WIDTH {
        lines.push(format!("{}{}", " ".repeat(column), style.paint(Paint::Error, &format!("{carets} {words}"))));
        return;
    }
    // No room to its right: the words stand below, ending where the mark ends.
    lines.push(format!("{}{}", " ".repeat(column), style.paint(Paint::Error, &carets)));
    let left = (column + length).saturating_sub(cells(&words));
    lines.push(format!("{}{}", " ".repeat(left), style.paint(Paint::Error, &words)));
}

/// What stands at a hop, with the field's word for it.
pub fn name(style: &Style, hop: &PathHop) -> String {
    if hop.label.is_empty() {
        return word(style, hop.hop);
    }
    // The namespace stands in the heading.
    let label = hop.label.rsplit('/').next().unwrap_or(&hop.label);
    let text = match hop.hop {
        Hop::Client | Hop::Edge => return hop.label.clone(),
        Hop::Node => Text::new("render.path.node"),
        Hop::Service => Text::new("render.path.service"),
        Hop::Pod => Text::new("render.path.pod"),
        Hop::ServiceProxy | Hop::PodNetwork => return format!("{} {label}", word(style, hop.hop)),
    };
    format!("{} {label}", style.say(&text))
}

/// The field's word for a hop.
pub fn word(style: &Style, hop: Hop) -> String {
    style.say(&match hop {
        Hop::Client => Text::new("render.path.client"),
        Hop::Edge => Text::new("render.path.edge"),
        Hop::Node => Text::new("render.path.node"),
        Hop::Service => Text::new("render.path.service"),
        Hop::ServiceProxy => Text::new("render.path.service_proxy"),
        Hop::PodNetwork => Text::new("render.path.pod_network"),
        Hop::Pod => Text::new("render.path.pod"),
    })
}
