//! `status`: one line a target, which path carries it, since when, and how it fares.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::style::Style;
use super::width::table;

/// The path that carries a target now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "by", content = "carrier")]
pub enum Carried {
    NodePort,
    Forward(Carrier),
    HostPort,
    /// Nothing: the page does not open.
    Nothing,
    /// Nobody could look.
    Unknown,
}

/// How a forward carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Carrier {
    Kernel,
    Direct,
    Tunnel,
}

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Carried::NodePort => "NodePort",
            Carried::Forward(Carrier::Kernel) => "forward/kernel",
            Carried::Forward(Carrier::Direct) => "forward/direct",
            Carried::Forward(Carrier::Tunnel) => "forward/tunnel",
            Carried::HostPort => "hostPort",
            Carried::Nothing => "-",
            Carried::Unknown => "?",
        })
    }
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub path: Carried,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Timestamp>,
    /// Open now, where the path is ours and counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Id of the forward that stands by or carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// How that forward's tunnel is spoken to the API server, while it is what carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Writes the table. Heads are English, as kubectl's: scripts read them.
///
/// # Errors
/// Those of the writer.
pub fn write(style: &Style, rows: &[Row], now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    let mut head: Vec<String> = ["TARGET", "URL", "PATH", "HEALTHY-SINCE", "CONNECTIONS"].map(str::to_owned).to_vec();
    if style.wide {
        head.extend(["FORWARD", "TUNNEL"].map(str::to_owned));
    }
    head.push("LAST-ERROR".to_owned());
    let mut lines = vec![head];
    for row in rows {
        let mut line = vec![
            row.target.clone(),
            dash(row.url.clone()),
            row.path.to_string(),
            dash(row.healthy_since.map(|since| age(since, now))),
            dash(row.connections.map(|n| n.to_string())),
        ];
        if style.wide {
            line.extend([dash(row.forward.clone()), dash(row.tunnel_protocol.map(str::to_owned))]);
        }
        line.push(dash(row.last_error.as_ref().map(|e| e.lines().next().unwrap_or_default().to_owned())));
        lines.push(line);
    }
    for line in table(&lines) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

pub(super) fn dash(text: Option<String>) -> String {
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// As kubectl shows ages: `42s`, `5m`, `3h12m`, `2d4h`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => with(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}
