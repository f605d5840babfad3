//! The fallback path as `fix` starts and stops it: a background forward for one target.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::apply::{ForwardRequest, Forwarder};
use crate::facts::TargetFacts;
use crate::forward::spec::{Front, Kind, Mode, Page, Pair, Spec};
use crate::i18n::{Locale, say};
use crate::model::{PortRef, Target};
use crate::observe::Cluster;
use crate::observe::client::Connection;
use crate::observe::dial::{Ask, dial};
use crate::render::Reboot;
use crate::supervise::{self, Files, Started, Status};

/// Starts and stops forwards of this cluster's Services.
pub struct Fallback {
    cluster: Cluster,
    locale: Locale,
    /// What each target's forward leads to, learnt from the latest look.
    known: Mutex<BTreeMap<String, (Target, PortRef)>>,
    started: Mutex<BTreeMap<String, Started>>,
}

impl Fallback {
    pub fn new(cluster: Cluster, locale: Locale) -> Self {
        Self { cluster, locale, known: Mutex::default(), started: Mutex::default() }
    }

    /// Remembers which port of the Service the target means.
    pub fn learn(&self, target: &TargetFacts<'_>) {
        let Some((_, port)) = target.service.as_ref().and_then(|s| s.port) else { return };
        let number = u16::try_from(port.port).unwrap_or_default();
        let port = port.name.clone().filter(|n| !n.is_empty()).map_or(PortRef::Number(number), PortRef::Name);
        if let Ok(mut known) = self.known.lock() {
            known.insert(target.target.to_string(), (target.target.clone(), port));
        }
    }

    /// What was started for a target in this run.
    pub fn started(&self, target: &str) -> Option<Started> {
        self.started.lock().ok()?.get(target).cloned()
    }

    fn spec(&self, request: &ForwardRequest, port: u16) -> Result<(String, Spec), String> {
        let name = format!("{}/{}", request.namespace, request.service);
        let known = self.known.lock().ok().and_then(|known| known.get(&name).cloned());
        let (target, remote) = known.ok_or_else(|| format!("service {name} has no port"))?;
        let spec = Spec {
            pairs: vec![Pair { listen: port, port: remote }],
            addresses: vec![request.listen_address],
            front: match (request.front, request.around) {
                (true, true) => Front::Always,
                (true, false) => Front::Standby,
                (false, _) => Front::Never,
            },
            mode: match (request.tunnel, request.front && request.around) {
                (true, _) => Mode::Tunnel,
                (false, true) => Mode::Direct,
                (false, false) => Mode::Auto,
            },
            page: Page { path: target.path, marker: target.marker },
            connection: self.cluster.connection.clone(),
            cluster: self.cluster.uid.clone(),
            locale: self.locale,
            ..Spec::new(Kind::Service, &request.namespace, &request.service)
        };
        Ok((name, spec))
    }
}

impl Forwarder for Fallback {
    fn start<'a>(&'a self, request: &'a ForwardRequest) -> BoxFuture<'a, Result<String, String>> {
        async move {
            let (name, spec) = self.spec(request, request.listen_port)?;
            let mut result = supervise::start(&spec).await;
            // On a node the port is the point; elsewhere any free one serves.
            if request.listen_address.is_loopback() && result.as_ref().is_err_and(is_port_in_use) {
                result = supervise::start(&self.spec(request, 0)?.1).await;
            }
            let started = result.map_err(|error| match error {
                supervise::Error::Refused(refused) => say(self.locale, &refused.text),
                other => other.to_string(),
            })?;
            let id = started.id.clone();
            if let Ok(mut all) = self.started.lock() {
                all.insert(name, started);
            }
            Ok(id)
        }
        .boxed()
    }

    fn stop<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
        id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let stopped = match id {
                Some(id) if supervise::list().is_ok_and(|all| all.iter().any(|s| s.report.id == id)) => {
                    supervise::stop(id).await
                }
                // A restarted or renamed one of the same Service counts as the one that was started.
                _ => supervise::stop_target(namespace, service).await.map(drop),
            };
            stopped.map_err(|error| error.to_string())
        }
        .boxed()
    }
}

fn is_port_in_use(error: &supervise::Error) -> bool {
    matches!(error, supervise::Error::Refused(refused) if refused.text.key.starts_with("error.port_in_use"))
}

/// The forward of ours that stands for a target of this cluster.
pub fn standing(cluster: &str, target: &str) -> Option<Status> {
    let all = supervise::list().unwrap_or_default();
    all.into_iter().find(|s| s.report.phase.is_live() && s.report.target == target && s.report.cluster == cluster)
}

/// What a reboot means to a forward of ours; `connection` is what this run was told of the way to the cluster.
pub fn reboot(status: &Status, connection: &Connection) -> Reboot {
    let record = Files::own(&status.report.id).and_then(|files| files.read_record());
    #[cfg(unix)]
    if let Ok(record) = record {
        use crate::supervise::unit;
        if record.unit.is_some() {
            return Reboot::Outlived;
        }
        if unit::admit(connection).is_ok() {
            return Reboot::Ends { keep: Some(unit::install_command(&record.spec, connection)) };
        }
    }
    #[cfg(not(unix))]
    let _ = (record, connection);
    Reboot::Ends { keep: None }
}

/// Whether a forward's listener gives the right page.
pub async fn carries(at: SocketAddr, target: &Target) -> bool {
    let (path, marker) = (target.path.clone(), target.marker.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let host = at.to_string();
        dial(
            at.ip(),
            at.port(),
            &Ask { host: &host, path: Some(&path), marker: marker.as_deref() },
            Duration::from_secs(5),
        )
    });
    asked.await.is_ok_and(|(outcome, _)| outcome.is_right())
}
