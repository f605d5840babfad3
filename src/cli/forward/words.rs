//! Status and log of background forwards, as lines for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::forward::balancer::Way;
use crate::forward::report::{Phase, Report};
use crate::forward::spec::Front;
use crate::forward::watch::Over;
use crate::i18n::{Locale, say};
use crate::model::Text;
use crate::supervise::Status;
use crate::supervise::log::Entry;
use crate::supervise::state::Position;

/// One forward: a headline and what belongs to it.
pub fn status(locale: Locale, status: &Status) -> String {
    let report = &status.report;
    let since = moment(report.phase_since);
    let phase = say(locale, &phase(report.phase)).to_owned();
    let mut lines = vec![
        format!("{}  {}", report.id, report.urls.join(" ")),
        said(
            locale,
            Text::new("forward.status.phase").with("phase", phase).with("since", since).with("pid", status.pid),
        ),
        said(locale, Text::new("forward.status.target").with("object", &report.object).with("target", &report.target)),
        said(
            locale,
            Text::new("forward.status.connections")
                .with("live", report.live)
                .with("total", report.total)
                .with("parked", report.parked)
                .with("failed", report.failed)
                .with("retried", report.retried),
        ),
    ];
    if let Some(carrier) = carrier(report) {
        lines.push(said(locale, Text::new("forward.status.carrier").with("carrier", carrier)));
    }
    if !report.pods.is_empty() && report.phase.is_live() {
        lines.push(said(locale, Text::new("forward.status.pods").with("pods", report.pods.join(", "))));
    }
    match report.position.filter(|_| report.phase.is_live()) {
        Some(Position::Front) if report.front == Front::Always => {
            lines.push(said(locale, Text::new("forward.status.always")));
        }
        Some(Position::Front) => lines.push(said(locale, Text::new("forward.status.in_front"))),
        Some(Position::Behind) => lines.push(said(locale, Text::new("forward.status.behind"))),
        None => {}
    }
    if let Some(over) = &report.over {
        lines.push(said(locale, why(over)));
    }
    if let Some(lost) = &report.api_lost
        && report.phase.is_live()
    {
        let text = Text::new("forward.status.api_lost").with("since", moment(lost.at)).with("message", &lost.message);
        lines.push(said(locale, text));
    }
    if let Some(failure) = &report.last_failure {
        let text = Text::new("forward.status.failure").with("at", moment(failure.at)).with("message", &failure.message);
        lines.push(said(locale, text));
    }
    lines.join("\n") + "\n"
}

fn said(locale: Locale, text: Text) -> String {
    format!("  {}", say(locale, &text))
}

fn phase(phase: Phase) -> Text {
    match phase {
        Phase::Ready => Text::new("forward.phase.ready"),
        Phase::Parking => Text::new("forward.phase.parking"),
        Phase::Draining => Text::new("forward.phase.draining"),
        Phase::Stopped => Text::new("forward.phase.stopped"),
        Phase::Over => Text::new("forward.phase.over"),
        Phase::Died => Text::new("forward.phase.died"),
    }
}

fn carrier(report: &Report) -> Option<String> {
    Some(match (report.carrier?, report.tunnel_protocol) {
        (Way::Direct, _) => "direct".to_owned(),
        (Way::Tunnel, Some(rung)) => format!("tunnel ({})", rung.name()),
        (Way::Tunnel, None) => "tunnel".to_owned(),
    })
}

/// Why a forward ended by itself.
pub fn why(over: &Over) -> Text {
    match over {
        Over::Deleted { object } => {
            Text::new("forward.over.deleted").with("object", object).with("namespace", object.namespace())
        }
        Over::ClusterGone { message } => Text::new("forward.over.cluster_gone").with("message", message),
    }
}

/// Local time, to the second.
fn moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// One line of a log. What has no text of its own is shown as it is.
pub fn log_line(locale: Locale, entry: &Entry) -> String {
    let level = match entry.level.as_str() {
        "ERROR" => Text::new("ui.level.error"),
        "WARN" => Text::new("ui.level.warning"),
        "" => return entry.raw.clone(),
        _ => Text::new("ui.level.info"),
    };
    let at = entry.at.map(moment).unwrap_or_default();
    let what = match event(entry) {
        Some(text) => match entry.fields.get("connection") {
            Some(number) => format!("#{number} {}", say(locale, &text)),
            None => say(locale, &text),
        },
        None => format!("{} {}", entry.event, pairs(&entry.fields)).trim().to_owned(),
    };
    format!("{at} {} {what}", say(locale, &level))
}

fn pairs(fields: &Map<String, Value>) -> String {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    fields.iter().map(|(k, v)| format!("{k}={}", text(v))).collect::<Vec<_>>().join(" ")
}

fn event(entry: &Entry) -> Option<Text> {
    let field = |name: &str| match entry.fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    Some(match entry.event.as_str() {
        "started" => Text::new("forward.event.started").with("urls", field("urls")).with("pid", field("pid")),
        "endpoints" => Text::new("forward.event.endpoints").with("count", field("usable")).with("pods", field("pods")),
        "position" if field("outcome") == "always" => Text::new("forward.event.always"),
        "position" if field("position") == "Front" => {
            Text::new("forward.event.in_front").with("outcome", field("outcome"))
        }
        "position" => Text::new("forward.event.behind"),
        "dial-failed" => Text::new("forward.event.dial_failed")
            .with("pod", field("pod"))
            .with("way", field("way").to_lowercase())
            .with("message", field("error")),
        "unreachable" => {
            Text::new("forward.event.unreachable").with("pod", field("pod")).with("message", field("error"))
        }
        "repeated" => Text::new("forward.event.repeated").with("pod", field("pod")).with("message", field("error")),
        "aborted" => Text::new("forward.event.aborted").with("message", field("reason")),
        "refused" => {
            Text::new("forward.event.refused").with("client", field("client")).with("message", field("reason"))
        }
        "accept-waits" => Text::new("forward.event.accept_waits").with("limit", field("limit")),
        "api-lost" => Text::new("forward.event.api_lost").with("message", field("error")),
        "api-back" => Text::new("forward.event.api_back"),
        "rules-failed" => Text::new("forward.event.rules_failed").with("message", field("error")),
        "no-probe" => Text::new("forward.event.no_probe").with("message", field("error")),
        "closing" => Text::new("forward.event.closing"),
        "ended" => Text::new("forward.event.ended"),
        _ => return None,
    })
}
