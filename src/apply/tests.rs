//! Whole fixes and undos against an API server in memory.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::executor::Fix;
use super::fake::{Forwards, Server, settings};
use super::history::tests::patch_step;
use super::journal::{self, Outcome, Record};
use super::undo::{Undoable, choose, known, take_all_back};
use super::{Error, Settings};
use crate::model::{Act, ActionName, Change, ObjectRef, Step};

pub(super) const SERVICE: &str = "/api/v1/namespaces/b/services/p";
pub(super) const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/b/deployments/p-v1";
pub(super) const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/b/leases/bookaccess-fix";
pub(super) const MIRROR: &str = "/api/v1/namespaces/b/configmaps/bookaccess-journal";

struct Place {
    server: Server,
    forwards: Arc<Forwards>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let server = Server::default();
        server.put(
            SERVICE,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "p", "namespace": "b", "uid": "u1"},
                "spec": {"type": "ClusterIP", "ports": {"0": {"port": 9080}}}}),
        );
        server.put(
            DEPLOYMENT,
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "p-v1", "namespace": "b", "uid": "u2", "generation": 1},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "p"}}, "template": {"spec": {}}},
                "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}),
        );
        Self { server, forwards: Arc::default(), dir: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        settings(self.dir.path(), &self.forwards)
    }

    fn fix(&self) -> Fix {
        Fix::new(self.server.writer(), vec!["b/p".into()], self.settings())
    }

    async fn undoable(&self, id: Option<&str>) -> Result<Undoable, Error> {
        let state = Some(self.dir.path());
        choose(known(&self.server.writer(), state, "cluster-1", &["b".into()]).await, state, id)
    }

    async fn undo(&self) -> super::Undone {
        let fix = self.undoable(None).await.unwrap();
        take_all_back(&self.server.writer(), &self.settings(), &fix).await.unwrap()
    }
}

pub(super) fn pin_step() -> Step {
    let mut step = patch_step();
    step.name = ActionName::PinToControlPlane;
    step.act = Act::Patch {
        object: ObjectRef::namespaced("Deployment", "b", "p-v1"),
        uid: "u2".into(),
        changes: vec![Change {
            path: "/spec/template/spec/nodeSelector".into(),
            from: None,
            to: Some(json!({"kubernetes.io/hostname": "cp1"})),
        }],
    };
    step
}

pub(super) fn forward_step() -> Step {
    let mut step = patch_step();
    step.name = ActionName::OpenForward;
    step.act = Act::Forward {
        namespace: "b".into(),
        service: "p".into(),
        listen_port: 30080,
        listen_address: "10.0.0.1".parse().unwrap(),
        front: true,
        around: false,
        tunnel: false,
    };
    step
}

#[tokio::test]
async fn a_fix_is_journalled_mirrored_and_undone_to_what_was_before() {
    let place = Place::new();
    let before = (place.server.get(SERVICE), place.server.get(DEPLOYMENT));
    let mut fix = place.fix();
    for step in [forward_step(), patch_step(), pin_step()] {
        let seq = fix.apply(&step).await.unwrap();
        fix.verified(seq).await.unwrap();
    }
    assert!(place.server.get(LEASE).is_some());
    let id = fix.id().to_owned();
    fix.end(Outcome::Restored).await.unwrap();
    assert!(place.server.get(LEASE).is_none());
    assert_eq!(place.server.get(SERVICE).unwrap()["spec"]["type"], "NodePort");
    let mirrored = place.server.get(MIRROR).unwrap()["data"][&id].as_str().unwrap().to_owned();
    assert_eq!(journal::parse(&mirrored), journal::all(place.dir.path())[0].parsed);

    let report = place.undo().await;
    let names: Vec<ActionName> = report.undone.iter().map(|s| s.name).collect();
    assert_eq!(names, [ActionName::PinToControlPlane, ActionName::ServiceNodePort, ActionName::OpenForward]);
    assert_eq!((place.server.get(SERVICE), place.server.get(DEPLOYMENT)), before);
    assert_eq!(*place.forwards.0.lock().unwrap(), ["start p", "stop p f1"]);
    assert!(place.server.get(LEASE).is_none());
    assert!(matches!(place.undoable(None).await, Err(Error::NothingToUndo)));
    assert!(matches!(place.undoable(Some("nope")).await, Err(Error::UnknownFix { known, .. }) if known == [id]));
}

#[tokio::test]
async fn without_a_step_nothing_is_written_anywhere() {
    let place = Place::new();
    place.fix().end(Outcome::Restored).await.unwrap();
    assert!(place.server.writes().is_empty());
    assert!(!place.dir.path().join("journal").exists());
}

#[tokio::test]
async fn a_forward_alone_writes_nothing_to_the_cluster() {
    let place = Place::new();
    let mut fix = place.fix();
    fix.apply(&forward_step()).await.unwrap();
    fix.end(Outcome::LocalOnly).await.unwrap();
    assert!(place.server.writes().is_empty());
    assert_eq!(place.undo().await.undone.len(), 1);
}

#[tokio::test]
async fn undo_refuses_where_someone_changed_the_field_since() {
    let place = Place::new();
    let mut fix = place.fix();
    fix.apply(&patch_step()).await.unwrap();
    fix.apply(&pin_step()).await.unwrap();
    fix.end(Outcome::Restored).await.unwrap();
    place.server.set(SERVICE, "/spec/type", json!("LoadBalancer"));
    let report = place.undo().await;
    assert_eq!(report.undone.len(), 1, "the other step is taken back all the same");
    assert_eq!(report.refused[0].1.to_string(), "service/p: spec.type is LoadBalancer, expected NodePort");
    assert_eq!(place.server.get(SERVICE).unwrap()["spec"]["ports"]["0"]["nodePort"], 30080);
}

/// As after `kill -9` between the announcement and the write, and between the write and its record.
#[tokio::test]
async fn after_a_crash_the_object_says_whether_the_step_ran() {
    for ran in [false, true] {
        let place = Place::new();
        let before = place.server.get(SERVICE);
        let mut fix = place.fix();
        fix.apply(&patch_step()).await.unwrap();
        let path = journal::folder(place.dir.path()).join("cluster-1").join(format!("{}.jsonl", fix.id()));
        drop(fix);
        let text = std::fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|l| !l.contains("\"done\"")).collect();
        // The last line was being written when the power went.
        std::fs::write(&path, format!("{}\n{{\"record\":\"do", kept.join("\n"))).unwrap();
        place.server.set(MIRROR, "/data", json!({}));
        place.server.set(LEASE, "/spec/holderIdentity", json!(""));
        if !ran {
            place.server.put(SERVICE, before.clone().unwrap());
        }
        let report = place.undo().await;
        assert_eq!((report.undone.len(), report.refused.len(), report.torn), (1, 0, 1), "ran: {ran}");
        assert_eq!(place.server.get(SERVICE), before);
    }
}

#[tokio::test]
async fn an_object_made_anew_since_is_left_alone() {
    let place = Place::new();
    let mut fix = place.fix();
    fix.apply(&patch_step()).await.unwrap();
    fix.end(Outcome::Restored).await.unwrap();
    place.server.set(SERVICE, "/metadata/uid", json!("u9"));
    assert_eq!(place.undo().await.refused.len(), 0);
    assert_eq!(place.server.get(SERVICE).unwrap()["spec"]["type"], "NodePort");
}

#[tokio::test]
async fn a_fix_made_elsewhere_is_undone_here_from_the_mirror() {
    let laptop = Place::new();
    let before = laptop.server.get(SERVICE);
    let mut fix = laptop.fix();
    fix.apply(&forward_step()).await.unwrap();
    fix.apply(&patch_step()).await.unwrap();
    fix.end(Outcome::Restored).await.unwrap();

    let node = Place { server: laptop.server.clone(), forwards: Arc::default(), dir: tempfile::tempdir().unwrap() };
    let report = node.undo().await;
    assert_eq!(node.server.get(SERVICE), before);
    assert!(matches!(&report.refused[..], [(_, Error::Elsewhere { .. })]), "{report:?}");
    // The laptop learns of it from the mirror, and only its own forward is left.
    let left: Vec<ActionName> = laptop.undoable(None).await.unwrap().steps().map(|s| s.name).collect();
    assert_eq!(left, [ActionName::OpenForward]);
}

#[tokio::test]
async fn a_journal_of_another_cluster_is_no_reason_to_touch_this_one() {
    let place = Place::new();
    let mut yesterday = place.settings();
    yesterday.cluster = "cluster-0".into();
    let mut fix = Fix::new(place.server.writer(), vec!["b/p".into()], yesterday);
    fix.apply(&patch_step()).await.unwrap();
    let id = fix.id().to_owned();
    place.server.set(MIRROR, "/data", json!({}));
    assert!(matches!(place.undoable(None).await, Err(Error::NothingToUndo)));
    let named = place.undoable(Some(&id)).await;
    assert!(matches!(&named, Err(Error::OtherCluster { cluster, .. }) if cluster == "cluster-0"), "{named:?}");
}

#[tokio::test]
async fn a_refused_step_changes_and_announces_nothing() {
    let place = Place::new();
    place.server.deny("PATCH /api/v1/namespaces/b/services");
    let mut fix = place.fix();
    let error = fix.apply(&patch_step()).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { verb: "patch", .. }), "{error}");
    assert!(!fix.has_acted());
    assert!(place.server.writes().is_empty());
}

#[tokio::test]
async fn without_rights_to_lease_and_mirror_it_goes_on_with_a_warning() {
    let place = Place::new();
    place.server.deny("leases");
    place.server.deny("configmaps");
    let mut fix = place.fix();
    fix.apply(&patch_step()).await.unwrap();
    let warnings: Vec<String> = fix.take_warnings().into_iter().map(|w| w.key.into_owned()).collect();
    assert_eq!(warnings, ["apply.warning.no_lease", "apply.warning.no_mirror"]);
    fix.end(Outcome::Restored).await.unwrap();
    assert_eq!(place.undo().await.undone.len(), 1);
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_stops_before_any_change() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("journal"), "").unwrap();
    let mut fix = place.fix();
    assert!(matches!(fix.apply(&patch_step()).await, Err(Error::Journal { .. })));
    fix.end(Outcome::Failed).await.unwrap();
    assert!(place.server.writes().is_empty(), "not even a Lease");
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_does_not_come_up_is_put_back() {
    let place = Place::new();
    let before = place.server.get(DEPLOYMENT).unwrap();
    place.server.set(DEPLOYMENT, "/status/availableReplicas", json!(0));
    let mut fix = place.fix();
    let error = fix.apply(&pin_step()).await.unwrap_err();
    assert!(matches!(&error, Error::Rollout { reason, .. } if reason.contains("60 s")), "{error}");
    assert_eq!(place.server.get(DEPLOYMENT).unwrap()["spec"], before["spec"]);
    let records = journal::all(place.dir.path())[0].parsed.records.clone();
    assert!(matches!(records.last(), Some(Record::Reverted { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_that_lacks_a_node_is_no_failure() {
    let place = Place::new();
    let path = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
    place.server.put(
        path,
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system", "uid": "u3", "generation": 1},
            "spec": {"selector": {"matchLabels": {"k8s-app": "kube-proxy"}}, "template": {"spec": {}}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
    );
    let mut step = pin_step();
    if let Act::Patch { object, uid, .. } = &mut step.act {
        (*object, *uid) = (ObjectRef::namespaced("DaemonSet", "kube-system", "kube-proxy"), "u3".to_owned());
    }
    let begun = tokio::time::Instant::now();
    place.fix().apply(&step).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(15) && begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_step_is_put_back() {
    let place = Place::new();
    let before = place.server.get(DEPLOYMENT).unwrap();
    place.server.set(DEPLOYMENT, "/status/availableReplicas", json!(0));
    let settings = place.settings();
    let cancel = settings.cancel.clone();
    let mut fix = Fix::new(place.server.writer(), vec!["b/p".into()], settings);
    let ctrl_c = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cancel.cancel();
    };
    let step = pin_step();
    let (result, ()) = tokio::join!(fix.apply(&step), ctrl_c);
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(place.server.get(DEPLOYMENT).unwrap()["spec"], before["spec"]);
    assert!(matches!(fix.apply(&step).await, Err(Error::Interrupted)), "no further step is begun");
}

#[tokio::test]
async fn waking_leaves_nothing_behind() {
    let place = Place::new();
    let before = place.server.paths();
    let mut step = patch_step();
    step.act = Act::Wake { namespace: "b".into() };
    let mut fix = place.fix();
    fix.apply(&step).await.unwrap();
    fix.end(Outcome::Restored).await.unwrap();
    let created = place.server.writes().iter().filter(|w| *w == "POST /api/v1/namespaces/b/services").count();
    assert_eq!(created, 1);
    let left: Vec<String> = place.server.paths().into_iter().filter(|p| !before.contains(p)).collect();
    assert_eq!(left, [MIRROR]);
    assert!(matches!(place.undoable(None).await, Err(Error::NothingToUndo)));
}

fn lease(holder: &str, age: i64) -> Value {
    let renewed = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age);
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "bookaccess-fix", "namespace": "b"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": format!("{renewed:.6}")}})
}

#[tokio::test(start_paused = true)]
async fn a_living_holder_excludes_a_second_fix_and_a_dead_one_does_not() {
    let place = Place::new();
    place.server.put(LEASE, lease("laptop pid 1", 0));
    let server = place.server.clone();
    let renewal = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        server.put(LEASE, lease("laptop pid 1", -5));
    };
    let mut fix = place.fix();
    let step = patch_step();
    let (result, ()) = tokio::join!(fix.apply(&step), renewal);
    assert!(matches!(&result, Err(Error::Held { by, .. }) if by == "laptop pid 1"), "{result:?}");
    assert!(!fix.has_acted() && journal::all(place.dir.path()).is_empty());
    assert_eq!(place.server.get(SERVICE).unwrap()["spec"]["type"], "ClusterIP");

    let begun = tokio::time::Instant::now();
    fix.apply(&step).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(15), "a dead holder is waited for once");

    let place = Place::new();
    place.server.put(LEASE, lease("laptop pid 1", 3600));
    let begun = tokio::time::Instant::now();
    place.fix().apply(&step).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "one of long ago is not");
}

const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/b/networkpolicies/p-from-outside";

pub(super) fn create_step() -> Step {
    let mut step = patch_step();
    step.name = ActionName::AdmitOutside;
    step.act = Act::Create {
        object: ObjectRef::namespaced("NetworkPolicy", "b", "p-from-outside"),
        manifest: json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p-from-outside", "namespace": "b"},
            "spec": {"podSelector": {"matchLabels": {"app": "p"}}, "ingress": [{"ports": [{"port": 9080}]}]}}),
        restart: None,
    };
    step
}

#[tokio::test]
async fn what_was_created_is_deleted_by_its_uid() {
    let place = Place::new();
    let mut fix = place.fix();
    fix.apply(&create_step()).await.unwrap();
    fix.end(Outcome::Restored).await.unwrap();
    let created = place.server.get(POLICY).unwrap();
    let records = journal::all(place.dir.path())[0].parsed.records.clone();
    let uid = records.iter().find_map(|r| match r {
        Record::Done { uid, .. } => uid.clone(),
        _ => None,
    });
    assert_eq!(uid.as_deref(), created["metadata"]["uid"].as_str());
    assert_eq!(place.undo().await.undone.len(), 1);
    assert_eq!(place.server.get(POLICY), None);
}

#[tokio::test]
async fn what_another_changed_or_made_anew_is_not_deleted() {
    let changes: [(&str, Value, usize); 3] = [
        ("/spec/ingress/0/ports/0/port", json!(9090), 1),
        ("/metadata/managedFields", json!([{"manager": "kubectl-edit"}]), 1),
        ("/metadata/uid", json!("u9"), 0),
    ];
    for (pointer, value, refused) in changes {
        let place = Place::new();
        let mut fix = place.fix();
        fix.apply(&create_step()).await.unwrap();
        fix.end(Outcome::Restored).await.unwrap();
        let mut object = place.server.get(POLICY).unwrap();
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl-bookaccess"}]);
        *object.pointer_mut(pointer).unwrap() = value;
        place.server.put(POLICY, object);
        assert_eq!(place.undo().await.refused.len(), refused, "{pointer}");
        assert!(place.server.get(POLICY).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn an_object_that_is_there_already_is_neither_changed_nor_taken_for_ours() {
    let place = Place::new();
    let theirs = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p-from-outside", "namespace": "b", "uid": "theirs"}, "spec": {}});
    place.server.put(POLICY, theirs.clone());
    let mut fix = place.fix();
    assert!(matches!(fix.apply(&create_step()).await, Err(Error::Refused { .. })));
    assert!(!fix.has_acted());
    assert_eq!(place.server.get(POLICY), Some(theirs));
    assert!(place.server.writes().is_empty());
}
