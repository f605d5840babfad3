//! The verb `status`: which path carries each target now.

use std::time::Duration;

use super::args::{Globals, Output, StatusArgs};
use super::fix::fallback;
use super::{fix, output, scope};
use crate::check::{self, Report};
use crate::error::ExpectedError;
use crate::exit::Exit;
use crate::facts::{Facts, TargetFacts};
use crate::forward::balancer::Way;
use crate::forward::report::Phase;
use crate::observe;
use crate::render::json::Document;
use crate::render::status::{Carried, Carrier, Row};
use crate::render::{self, Style, view};
use crate::supervise::Status;
use crate::supervise::state::Position;

/// Time between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Prints one line a target, once or with `--watch` until Ctrl-C.
///
/// # Errors
/// Where nothing can be looked at.
pub async fn run(globals: Globals, args: StatusArgs) -> Result<Exit, ExpectedError> {
    let interrupt = fix::Interrupt::listen(&globals);
    let field = interrupt.or(scope::enter(&globals, &args.targets)).await??;
    let style = Style {
        locale: globals.locale,
        color: output::colors_stdout(globals.color),
        wide: globals.output == Output::Wide,
    };
    loop {
        let snapshot = interrupt.or(observe::look(&field.cluster, &field.targets, &field.wanted)).await?;
        let facts = Facts::derive(&snapshot);
        let report = check::run(&facts);
        let mut rows = Vec::new();
        let mut exit = Exit::Ok;
        for target in &facts.targets {
            let row = row(&field.cluster.uid, &facts, target, &report).await;
            if row.path == Carried::Nothing && fix::counts(target, &report) {
                exit = Exit::Problem;
            }
            rows.push(row);
        }
        let reader = output::result(|out| match globals.output {
            Output::Json => Document::status(&rows, exit).write_json(out),
            Output::Yaml => Document::status(&rows, exit).write_yaml(out),
            Output::Text | Output::Wide => render::status::write(&style, &rows, snapshot.taken_at, out),
        })?;
        if !args.watch || reader == output::Reader::Gone {
            return Ok(exit);
        }
        // Ctrl-C is how a watch is meant to end.
        if interrupt.or(tokio::time::sleep(WATCH_EVERY)).await.is_err() {
            return Ok(exit);
        }
    }
}

async fn row(cluster: &str, facts: &Facts<'_>, target: &TargetFacts<'_>, report: &Report) -> Row {
    let name = target.target.to_string();
    let standing = fallback::standing(cluster, &name);
    let own_path = target.reach.answers == Some(true);
    let forwarded = match &standing {
        Some(status) if !own_path => fix::carried(status, target).await.map(|at| (at, carrier(status))),
        _ => None,
    };
    let local = forwarded.and_then(|(at, _)| {
        let here = fix::leads_here(facts, target) && !at.ip().is_loopback();
        (!here).then(|| format!("http://{at}{}", target.target.path))
    });
    let path = match (target.reach.answers, forwarded) {
        (Some(true), _) if on_host_port(target) => Carried::HostPort,
        (Some(true), _) => Carried::NodePort,
        (_, Some((_, carrier))) => Carried::Forward(carrier),
        (Some(false), None) => Carried::Nothing,
        (None, None) => Carried::Unknown,
    };
    let healthy_since = standing.as_ref().and_then(|s| match s.report.position {
        Some(Position::Behind) if own_path => s.report.position_since,
        _ if forwarded.is_some() && s.report.phase == Phase::Ready => Some(s.report.phase_since),
        _ => None,
    });
    let blamed = report.findings.iter().find(|f| f.target == name).map(|f| format!("{} {}", f.code, f.slug));
    let failed = standing.as_ref().and_then(|s| s.report.last_failure.as_ref()).map(|f| f.message.clone());
    Row {
        target: name,
        url: local.or_else(|| view::url(target)),
        path,
        healthy_since,
        connections: standing.as_ref().map(|s| s.report.live),
        tunnel_protocol: standing.as_ref().filter(|s| s.report.carrier == Some(Way::Tunnel)).and_then(protocol),
        forward: standing.map(|s| s.report.id),
        last_error: blamed.or(failed),
    }
}

fn carrier(status: &Status) -> Carrier {
    match status.report.carrier {
        Some(Way::Tunnel) => Carrier::Tunnel,
        _ => Carrier::Direct,
    }
}

fn protocol(status: &Status) -> Option<&'static str> {
    Some(status.report.tunnel_protocol?.name())
}

/// Whether the pod takes the port on the dialled node by itself.
fn on_host_port(target: &TargetFacts<'_>) -> bool {
    let (Some(service), Some(port)) = (&target.service, target.reach.port) else { return false };
    service.live_pods().filter_map(|pod| pod.spec.as_ref()).any(|spec| {
        spec.node_name.as_deref() == target.reach.node
            && spec
                .containers
                .iter()
                .flat_map(|c| c.ports.iter().flatten())
                .any(|p| p.host_port == Some(i32::from(port)))
    })
}
