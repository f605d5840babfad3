//! Fixes that `kill -9` ends at any point: at every request, served or not, and at every byte of the journal that may
//! then be missing. Whatever the point, `fix --undo` and a second `fix` both end right.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::executor::{Fix, ForwardRequest, Forwarder, ROLLOUT_LIMIT, Settings};
use super::fake::{Kill, Server};
use super::history::tests::patch_step;
use super::journal::{self, Outcome};
use super::tests::{DEPLOYMENT, LEASE, MIRROR, SERVICE, create_step, forward_step, pin_step};
use super::undo::{choose, known, take_all_back};
use super::{Error, Undone};
use crate::model::{Act, ActionName, Change, ObjectRef, Restart, Step};
use crate::plan::patch;

const CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/b/networkpolicies/p-from-outside";

/// Forwarders that run, whoever started them: they outlive the process that did.
struct Forwards {
    server: Server,
    running: Mutex<BTreeSet<String>>,
}

impl Forwarder for Forwards {
    fn start<'a>(&'a self, request: &'a ForwardRequest) -> BoxFuture<'a, Result<String, String>> {
        async move {
            let start = || self.running.lock().unwrap().insert(request.service.clone());
            self.server.serve(start).await;
            Ok("f1".to_owned())
        }
        .boxed()
    }

    fn stop<'a>(&'a self, _: &'a str, service: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<(), String>> {
        async move {
            self.server.serve(|| self.running.lock().unwrap().remove(service)).await;
            Ok(())
        }
        .boxed()
    }
}

/// A cluster and a machine.
struct Place {
    server: Server,
    forwards: Arc<Forwards>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let server = Server::default();
        let objects = [
            (
                SERVICE,
                json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "p", "namespace": "b", "uid": "u1"},
                "spec": {"type": "ClusterIP", "sessionAffinity": "ClientIP", "ports": {"0": {"port": 9080}}}}),
            ),
            (
                DEPLOYMENT,
                json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "p-v1", "namespace": "b", "uid": "u2", "generation": 1},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "p"}}, "template": {"spec": {}}},
                "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}),
            ),
            (
                CONFIG,
                json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kube-proxy", "namespace": "kube-system", "uid": "u3"},
                "data": {"config.conf": "mode: old\n"}}),
            ),
            (
                DAEMON_SET,
                json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "kube-proxy", "namespace": "kube-system", "uid": "u4"},
                "spec": {"selector": {"matchLabels": {"k8s-app": "kube-proxy"}}}}),
            ),
        ];
        for (path, object) in objects {
            server.put(path, object);
        }
        server.put(
            &format!("{PODS}/kube-proxy-a"),
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "cp1"},
                "metadata": {"name": "kube-proxy-a", "namespace": "kube-system", "uid": "u5", "ownerReferences": [{"uid": "u4"}]},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        let forwards = Arc::new(Forwards { server: server.clone(), running: Mutex::default() });
        Self { server, forwards, dir: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        Settings {
            state: self.dir.path().to_owned(),
            cluster: "cluster-1".to_owned(),
            forwarder: self.forwards.clone(),
            cancel: Default::default(),
            rollout: ROLLOUT_LIMIT,
        }
    }

    /// All that a fix changes, but for what it keeps for itself and for the pods, which come and go.
    fn state(&self) -> (BTreeMap<String, Value>, BTreeSet<String>) {
        let own = |path: &String| *path == MIRROR || *path == LEASE || path.starts_with(PODS);
        let paths = self.server.paths().into_iter().filter(|p| !own(p));
        let objects = paths.map(|p| (p.clone(), self.server.get(&p).unwrap())).collect();
        (objects, self.forwards.running.lock().unwrap().clone())
    }

    /// The steps that a plan made now would hold: of those that help, what is not in place.
    fn planned(&self) -> Vec<Step> {
        let needed = |step: &Step| match &step.act {
            Act::Patch { object, changes, .. } | Act::Configure { object, changes, .. } => {
                let path = match object.kind.as_str() {
                    "Service" => SERVICE,
                    "Deployment" => DEPLOYMENT,
                    _ => CONFIG,
                };
                patch::mismatch(&self.server.get(path).unwrap(), changes).is_none()
            }
            Act::Create { .. } => self.server.get(POLICY).is_none(),
            _ => !self.forwards.running.lock().unwrap().contains("p"),
        };
        let helping = [forward_step(), patch_step(), create_step(), configure_step(&self.pod()), pin_step()];
        helping.into_iter().filter(needed).collect()
    }

    /// The kube-proxy pod of the moment.
    fn pod(&self) -> (String, String) {
        let path = self.server.paths().into_iter().find(|p| p.starts_with(PODS)).unwrap();
        let pod = self.server.get(&path).unwrap();
        let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
        (text("name"), text("uid"))
    }

    /// A whole fix, one step of which does not help and is taken back.
    async fn fix(&self) -> Result<(), Error> {
        let mut fix = Fix::new(self.server.writer(), vec!["b/p".into()], self.settings());
        for step in self.planned() {
            let seq = fix.apply(&step).await?;
            fix.verified(seq).await?;
            if step.name == ActionName::AdmitOutside {
                let seq = fix.apply(&affinity_step()).await?;
                fix.revert(seq).await?;
            }
        }
        fix.end(Outcome::Restored).await
    }

    /// The same, until the process dies.
    async fn killed(&self, kill: Kill) {
        self.server.kill(Some(kill));
        tokio::select! {
            biased;
            () = self.server.dies() => {}
            done = self.fix() => done.unwrap(),
        }
        self.server.kill(None);
    }

    async fn undo(&self) -> Result<Undone, Error> {
        let writer = self.server.writer();
        let state = Some(self.dir.path());
        let found = choose(known(&writer, state, "cluster-1", &["b".into()]).await, state, None)?;
        take_all_back(&writer, &self.settings(), &found).await
    }

    /// Undoes all there is, as often as there is something.
    async fn undo_all(&self) {
        loop {
            match self.undo().await {
                Ok(report) => assert!(report.refused.is_empty(), "{report:?}"),
                Err(Error::NothingToUndo) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn journalled(&self) -> String {
        journals(self.dir.path()).first().map(|p| std::fs::read_to_string(p).unwrap()).unwrap_or_default()
    }

    /// Whoever reads the old configuration has read it since it was put back.
    fn pods_follow(&self) -> bool {
        let writes = self.server.writes();
        let last = |what: &str| writes.iter().rposition(|w| w.starts_with(what));
        match last(&format!("PATCH {CONFIG}")) {
            Some(patched) => last(&format!("DELETE {PODS}")).is_some_and(|deleted| deleted > patched),
            None => true,
        }
    }
}

fn configure_step((name, uid): &(String, String)) -> Step {
    let mut step = patch_step();
    step.name = ActionName::ConfigureKubeProxy;
    step.act = Act::Configure {
        object: ObjectRef::namespaced("ConfigMap", "kube-system", "kube-proxy"),
        uid: "u3".into(),
        changes: vec![Change {
            path: "/data/config.conf".into(),
            from: Some(json!("mode: old\n")),
            to: Some(json!("mode: new\n")),
        }],
        daemon_set: ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy"),
        restart: Restart { pod: ObjectRef::namespaced("Pod", "kube-system", name), uid: uid.clone() },
    };
    step
}

/// Helps nothing.
fn affinity_step() -> Step {
    let mut step = patch_step();
    step.name = ActionName::SessionAffinity;
    step.act = Act::Patch {
        object: ObjectRef::namespaced("Service", "b", "p"),
        uid: "u1".into(),
        changes: vec![Change {
            path: "/spec/sessionAffinity".into(),
            from: Some(json!("ClientIP")),
            to: Some(json!("None")),
        }],
    };
    step
}

/// How many lines the journal has as each request of a whole fix comes in.
async fn measure() -> Vec<usize> {
    let place = Place::new();
    let folder = place.dir.path().to_owned();
    place.server.watch(move || journals(&folder).first().map_or(0, |p| lines(p)));
    place.fix().await.unwrap();
    place.server.seen()
}

/// Every point at which the process can have died: a request, whether it was served, and what of the journal's lines
/// that were written since the request before had reached the disk: whole lines, or half a line more.
async fn points() -> Vec<(Kill, Option<(usize, bool)>)> {
    let mut points = Vec::new();
    let mut before = 0;
    for (at, lines) in (1..).zip(measure().await) {
        points.push((Kill { at, served: true }, None));
        points.push((Kill { at, served: false }, None));
        // A line is forced to the disk before the next request is made.
        for kept in before..lines {
            points.push((Kill { at, served: false }, Some((kept, true))));
            if kept > before {
                points.push((Kill { at, served: false }, Some((kept, false))));
            }
        }
        before = lines;
    }
    points
}

fn journals(state: &Path) -> Vec<PathBuf> {
    let folder = journal::folder(state).join("cluster-1");
    std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).collect()
}

fn lines(journal: &Path) -> usize {
    std::fs::read_to_string(journal).unwrap().lines().count()
}

impl Place {
    async fn died(kill: Kill, cut: Option<(usize, bool)>) -> Self {
        let place = Self::new();
        place.killed(kill).await;
        if let (Some((kept, torn)), Some(path)) = (cut, journals(place.dir.path()).first()) {
            let text = std::fs::read_to_string(path).unwrap();
            let mut left: String = text.split_inclusive('\n').take(kept).collect();
            let next = text.split_inclusive('\n').nth(kept).unwrap_or_default();
            left.push_str(if torn { &next[..next.len() / 2] } else { "" });
            std::fs::write(path, left).unwrap();
        }
        place
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_it_is_killed_undo_leads_back() {
    let before = Place::new().state();
    let points = points().await;
    assert!(points.len() > 100, "{}", points.len());
    for (kill, cut) in points {
        let place = Place::died(kill, cut).await;
        place.undo_all().await;
        assert_eq!(place.state(), before, "{kill:?} {cut:?}\n{}", place.journalled());
        assert!(place.pods_follow(), "{kill:?} {cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_it_is_killed_a_second_fix_ends_right_and_leads_back() {
    let before = Place::new().state();
    let whole = Place::new();
    whole.fix().await.unwrap();
    let (wanted, running) = whole.state();
    for (kill, cut) in points().await {
        let place = Place::died(kill, cut).await;
        place.fix().await.unwrap();
        let (objects, forwards) = place.state();
        assert_eq!(forwards, running, "{kill:?} {cut:?}");
        assert_eq!(place.planned(), [], "{kill:?} {cut:?}");
        assert_eq!(objects.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{kill:?} {cut:?}");
        place.undo_all().await;
        assert_eq!(place.state(), before, "{kill:?} {cut:?}\n{}", place.journalled());
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_an_undo_is_killed_another_one_finishes_it() {
    let before = Place::new().state();
    let whole = Place::new();
    whole.fix().await.unwrap();
    whole.server.kill(None);
    whole.undo().await.unwrap();
    for at in 1..=whole.server.asked() {
        for served in [true, false] {
            let place = Place::new();
            place.fix().await.unwrap();
            place.server.kill(Some(Kill { at, served }));
            tokio::select! {
                biased;
                () = place.server.dies() => {}
                undone = place.undo() => drop(undone.unwrap()),
            }
            place.server.kill(None);
            place.undo_all().await;
            assert_eq!(place.state(), before, "{at} {served}");
            assert!(place.pods_follow(), "{at} {served}");
        }
    }
}
