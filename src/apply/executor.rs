//! One fix: its steps, one after the other, each journalled before it runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::history::{Entry, Progress};
use super::journal::{Journal, Outcome, Record, new_id};
use super::kube::{MANAGED_BY, Writer, text};
use super::lease::{self, Held};
use super::take_back::take_back;
use super::{Error, mirror, node, rollout};
use crate::model::{Act, NodeSetting, ObjectRef, Restart, Step, Text};
use crate::observe::client::Cluster;
use crate::statedir;

/// A changed workload must run as changed within this time.
pub const ROLLOUT_LIMIT: Duration = Duration::from_secs(60);

/// Name of the throw-away Service that wakes kube-proxy, before its random end.
pub(super) const WAKE: &str = "bookaccess-wake-";

/// The annotation by which a created object names its step.
pub(super) const MARK: &str = "bookaccess-fix";

/// The fallback to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRequest {
    pub namespace: String,
    pub service: String,
    pub listen_address: IpAddr,
    pub listen_port: u16,
    /// Whether it may lead the NodePort to itself by rules of its own.
    pub front: bool,
    /// Always, and by its listener alone.
    pub around: bool,
    /// Through the API server alone.
    pub tunnel: bool,
}

/// Starts and stops forwarders in the background on this machine; given by the caller, so that changing the cluster
/// and carrying connections know nothing of each other.
pub trait Forwarder: Send + Sync {
    /// Starts one and waits until it listens. Its id, or why it does not run.
    fn start<'a>(&'a self, request: &'a ForwardRequest) -> BoxFuture<'a, Result<String, String>>;
    /// Stops the one of this Service (and this id, where it is known). One that does not run is no error.
    fn stop<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
        id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// What a fix needs to know of its surroundings.
#[derive(Clone)]
pub struct Settings {
    /// Where the journal lies.
    pub state: PathBuf,
    /// uid of namespace kube-system.
    pub cluster: String,
    pub forwarder: Arc<dyn Forwarder>,
    /// Ends waits; the step under way is reverted.
    pub cancel: CancellationToken,
    pub rollout: Duration,
}

impl Settings {
    /// For this cluster, with the journal in this user's state folder.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn new(cluster: &Cluster, forwarder: Arc<dyn Forwarder>, cancel: CancellationToken) -> Result<Self, Error> {
        Ok(Self {
            state: statedir::own().ok_or(Error::NoStateFolder)?,
            cluster: cluster.uid.clone(),
            forwarder,
            cancel,
            rollout: ROLLOUT_LIMIT,
        })
    }
}

/// A namespace of a target in which this fix changes something.
struct Engaged {
    lease: Option<Held>,
    /// The mirror takes records.
    mirrored: bool,
}

/// One fix under way. Nothing is written anywhere before the first step.
pub struct Fix {
    writer: Writer,
    settings: Settings,
    id: String,
    begun: Timestamp,
    targets: Vec<String>,
    journal: Option<Journal>,
    engaged: BTreeMap<String, Engaged>,
    steps: Vec<Entry>,
    warnings: Vec<Text>,
}

impl Fix {
    /// Begins a fix of these targets (`namespace/service`).
    pub fn begin(cluster: &Cluster, targets: Vec<String>, settings: Settings) -> Self {
        Self::new(Writer::new(cluster.client.clone(), cluster.connection.request_timeout), targets, settings)
    }

    /// The same, for a given writer.
    pub fn new(writer: Writer, targets: Vec<String>, settings: Settings) -> Self {
        let begun = Timestamp::now();
        Self {
            writer,
            settings,
            id: new_id(begun),
            begun,
            targets,
            journal: None,
            engaged: BTreeMap::new(),
            steps: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What `fix --undo` takes as its argument.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether any step was taken.
    pub fn has_acted(&self) -> bool {
        !self.steps.is_empty()
    }

    /// What went wrong without stopping the fix, since the last call.
    pub fn take_warnings(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes one step and waits until it is in effect; its number in this fix. After an error nothing of the step is
    /// left in place. A step that is only told is none.
    ///
    /// # Errors
    /// See [`Error`]: refused, changed in between, not come up, interrupted.
    pub async fn apply(&mut self, step: &Step) -> Result<u32, Error> {
        if self.settings.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        // Whatever the API server would refuse is refused before anything is written down or changed.
        match &step.act {
            Act::Patch { object, uid, changes } => self.writer.patch(object, uid, changes, true).await?,
            Act::DeletePod { object, uid } => self.writer.delete_pod(object, uid, true).await?,
            Act::Wake { namespace } => {
                let (object, body) = wake_service(namespace, &self.id, self.steps.len());
                self.writer.create(&object, body, true).await?;
            }
            Act::Create { object, manifest, .. } => {
                self.writer.make(object, manifest.clone(), true).await?.ok_or_else(|| taken(object))?;
            }
            Act::Configure { object, uid, changes, restart, .. } => {
                self.writer.patch(object, uid, changes, true).await?;
                self.writer.delete_pod(&restart.pod, &restart.uid, true).await?;
            }
            Act::Node { settings, .. } => on_node(settings, node::check).await?,
            Act::Forward { .. } | Act::Tell => {}
        }
        // Where nothing can be written down, not even a Lease is made.
        self.open_journal()?;
        if !matches!(step.act, Act::Forward { .. } | Act::Tell) {
            self.engage(step).await?;
        }
        let seq = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.record(Record::Intent { seq, at: Timestamp::now(), step: Box::new(step.clone()) }).await?;
        self.steps.push(Entry::announced(seq, step.clone()));
        let acted = self.act(step, seq).await;
        if let Err(error) = acted {
            // What is in place of it is taken back; where that fails too, the journal still knows.
            if let Err(second) = self.revert(seq).await {
                tracing::warn!(error = %second, "a failed step could not be taken back");
                self.warnings.push(second.text());
            }
            return Err(error);
        }
        Ok(seq)
    }

    async fn act(&mut self, step: &Step, seq: u32) -> Result<(), Error> {
        let (limit, cancel) = (self.settings.rollout, self.settings.cancel.clone());
        match &step.act {
            Act::Patch { object, uid, changes } => {
                let before = rollout::pods_before(&self.writer, object).await?;
                self.writer.patch(object, uid, changes, false).await?;
                self.done(seq, None, None).await?;
                rollout::wait(&self.writer, object, &before, limit, &cancel).await
            }
            Act::DeletePod { object, uid } => {
                let gone = || Error::Gone { object: object.clone() };
                let pod = self.writer.read(object).await?.ok_or_else(gone)?;
                self.writer.delete_pod(object, uid, false).await?;
                self.done(seq, None, None).await?;
                rollout::wait_replacement(&self.writer, &pod, limit, &cancel).await
            }
            Act::Create { object, manifest, restart } => {
                let body = marked(manifest, &mark(&self.id, seq));
                let made = self.writer.make(object, body, false).await?.ok_or_else(|| taken(object))?;
                self.done(seq, None, Some(text(&made, "/metadata/uid").to_owned())).await?;
                match restart {
                    Some(restart) => self.restart(restart).await,
                    None => Ok(()),
                }
            }
            Act::Configure { object, uid, changes, restart, .. } => {
                self.writer.patch(object, uid, changes, false).await?;
                self.done(seq, None, None).await?;
                self.restart(restart).await
            }
            Act::Wake { namespace } => {
                let (object, body) = wake_service(namespace, &self.id, seq as usize);
                self.writer.create(&object, body, false).await?;
                // kube-proxy syncs on both events; nothing need stay for it.
                self.writer.delete(&object, None, false).await?;
                self.done(seq, None, None).await
            }
            Act::Forward { .. } => {
                let id = match forward_request(&step.act) {
                    Some(request) => self.settings.forwarder.start(&request).await,
                    None => return Ok(()),
                };
                self.done(seq, Some(id.map_err(|message| Error::Forward { message })?), None).await
            }
            Act::Node { settings, .. } => {
                on_node(settings, node::make).await?;
                self.done(seq, None, None).await
            }
            Act::Tell => self.done(seq, None, None).await,
        }
    }

    /// Deletes a pod and waits for the one that takes its place.
    async fn restart(&self, restart: &Restart) -> Result<(), Error> {
        // One that is gone by now was made anew in between.
        let Some(pod) = self.writer.read(&restart.pod).await? else { return Ok(()) };
        self.writer.delete_pod(&restart.pod, &restart.uid, false).await?;
        rollout::wait_replacement(&self.writer, &pod, self.settings.rollout, &self.settings.cancel).await
    }

    async fn done(&mut self, seq: u32, forward: Option<String>, uid: Option<String>) -> Result<(), Error> {
        if let Some(step) = self.steps.get_mut(seq as usize) {
            step.progress = Progress::Done;
            step.forward.clone_from(&forward);
            step.uid.clone_from(&uid);
        }
        self.record(Record::Done { seq, at: Timestamp::now(), forward, uid }).await
    }

    /// The caller saw that the step works.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn verified(&mut self, seq: u32) -> Result<(), Error> {
        if let Some(step) = self.steps.get_mut(seq as usize) {
            step.progress = Progress::Verified;
        }
        self.record(Record::Verified { seq, at: Timestamp::now() }).await
    }

    /// Takes one step back, because it did not help.
    ///
    /// # Errors
    /// Someone changed the field in between, or the API server refuses.
    pub async fn revert(&mut self, seq: u32) -> Result<(), Error> {
        let Some(entry) = self.steps.get(seq as usize).filter(|e| e.progress < Progress::Reverted) else {
            return Ok(());
        };
        take_back(&self.writer, &self.id, entry, self.settings.forwarder.as_ref()).await?;
        if let Some(step) = self.steps.get_mut(seq as usize) {
            step.progress = Progress::Reverted;
        }
        self.record(Record::Reverted { seq, at: Timestamp::now() }).await
    }

    /// Ends the fix: the journal says how, and the Leases are given up.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn end(mut self, outcome: Outcome) -> Result<(), Error> {
        let written = match self.has_acted() {
            true => self.record(Record::End { at: Timestamp::now(), outcome }).await,
            false => Ok(()),
        };
        for (namespace, engaged) in std::mem::take(&mut self.engaged) {
            if let Some(lease) = engaged.lease
                && let Err(error) = lease.release().await
            {
                tracing::warn!(%error, namespace, "the lease was not released");
            }
        }
        written
    }

    /// Takes the Lease of the step's target's namespace and readies its mirror, once.
    async fn engage(&mut self, step: &Step) -> Result<(), Error> {
        let namespace = step.target.split_once('/').map_or(step.target.as_str(), |(n, _)| n).to_owned();
        if self.engaged.contains_key(&namespace) {
            return Ok(());
        }
        let holder = holder(&self.id);
        let lease = match lease::acquire(&self.writer, &namespace, &holder, &self.settings.cancel).await {
            Ok(lease) => Some(lease),
            // Whoever may change the Service but not make Leases is still helped.
            Err(Error::Forbidden { .. }) => {
                self.warnings.push(Text::new("apply.warning.no_lease").with("namespace", &namespace));
                None
            }
            Err(error) => return Err(error),
        };
        self.engaged.insert(namespace, Engaged { lease, mirrored: true });
        Ok(())
    }

    fn open_journal(&mut self) -> Result<&mut Journal, Error> {
        Ok(match &mut self.journal {
            Some(journal) => journal,
            empty => empty.insert(Journal::open(&self.settings.state, &self.settings.cluster, &self.id)?),
        })
    }

    /// Writes one record: to the disk or not at all, to the mirrors as far as they take it.
    async fn record(&mut self, record: Record) -> Result<(), Error> {
        let begin = Record::Begin {
            fix: self.id.clone(),
            at: self.begun,
            cluster: self.settings.cluster.clone(),
            host: host(),
            targets: self.targets.clone(),
        };
        let journal = self.open_journal()?;
        if journal.records().is_empty() {
            journal.append(begin)?;
        }
        journal.append(record)?;
        let records = journal.records().to_vec();
        for (namespace, engaged) in self.engaged.iter_mut().filter(|(_, e)| e.mirrored) {
            if let Err(error) = mirror::write(&self.writer, namespace, &self.id, &records).await {
                tracing::warn!(%error, namespace, "the journal is not mirrored");
                engaged.mirrored = false;
                self.warnings.push(Text::new("apply.warning.no_mirror").with("namespace", namespace));
            }
        }
        Ok(())
    }
}

/// The start request of a Forward act.
fn forward_request(act: &Act) -> Option<ForwardRequest> {
    match act.clone() {
        Act::Forward { namespace, service, listen_port, listen_address, front, around, tunnel } => {
            Some(ForwardRequest { namespace, service, listen_address, listen_port, front, around, tunnel })
        }
        _ => None,
    }
}

/// Does something with settings of this node, whose programs block.
pub(super) async fn on_node(
    settings: &[NodeSetting],
    work: fn(&[NodeSetting], node::Run<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let settings = settings.to_vec();
    let done = tokio::task::spawn_blocking(move || work(&settings, &node::really));
    done.await.map_err(|error| Error::Node { command: String::new(), message: error.to_string() })?
}

/// An object of that name came up since the plan was made.
fn taken(object: &ObjectRef) -> Error {
    Error::Refused { object: object.clone(), message: "an object of that name is there already".to_owned() }
}

/// What tells an object of this step from every other, where its uid was not written down any more.
pub(super) fn mark(fix: &str, seq: u32) -> String {
    format!("{fix}/{seq}")
}

fn marked(manifest: &serde_json::Value, mark: &str) -> serde_json::Value {
    let mut body = manifest.clone();
    body["metadata"]["annotations"][MARK] = json!(mark);
    body
}

/// A Service that leads nowhere and is deleted at once. `seq` keeps two of one fix apart.
fn wake_service(namespace: &str, fix: &str, seq: usize) -> (ObjectRef, serde_json::Value) {
    let name = format!("{WAKE}{fix}-{seq}");
    let body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    (ObjectRef::namespaced("Service", namespace, &name), body)
}

/// Who holds a Lease: machine, process and fix.
pub(super) fn holder(fix: &str) -> String {
    format!("{} pid {} fix {fix}", host(), std::process::id())
}

/// This machine's name.
pub(super) fn host() -> String {
    #[cfg(unix)]
    {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
    #[cfg(not(unix))]
    {
        std::env::var("COMPUTERNAME").unwrap_or_default()
    }
}
