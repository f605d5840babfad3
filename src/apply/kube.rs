//! The only file that writes to the cluster.
//!
//! Fields are changed by JSON Patch that tests uid, resourceVersion and the old values, under one field manager and
//! without force: whoever changed an object in between wins, and this program says so.

use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Error;
use crate::model::{Change, ObjectRef};
use crate::observe::client::{REQUEST_TIMEOUT, innermost};
use crate::plan::patch;

/// Under this name the API server records what was written here.
pub const FIELD_MANAGER: &str = "kubectl-bookaccess";

pub use crate::facts::service::MANAGED_BY;

/// A patch is tried again this often while only the resourceVersion moved (controllers write the status).
const ATTEMPTS: usize = 8;

/// Reads and writes objects by reference.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    limit: Duration,
}

impl Writer {
    /// Writes through this client; one request may take as long as `limit`.
    pub fn new(client: Client, limit: Option<Duration>) -> Self {
        Self { client, limit: limit.unwrap_or(REQUEST_TIMEOUT) }
    }

    fn api(&self, object: &ObjectRef) -> Result<Api<DynamicObject>, Error> {
        let resource = resource(&object.kind)?;
        Ok(match &object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// Runs one request within the limit and names what failed.
    async fn ask<T>(
        &self,
        verb: &'static str,
        object: &ObjectRef,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::of(verb, object, &error)),
            Err(_) => Err(Failure {
                code: 0,
                error: Error::Api {
                    message: format!("no answer to {verb} {object} within {} s", self.limit.as_secs()),
                },
            }),
        }
    }

    /// The object as it is now.
    pub async fn read(&self, object: &ObjectRef) -> Result<Option<Value>, Error> {
        let api = self.api(object)?;
        let found = self.ask("get", object, api.get_opt(&object.name)).await?;
        Ok(found.map(|o| value(&o)))
    }

    /// The objects of one kind; all namespaces where `namespace` is none.
    pub async fn list(&self, kind: &str, namespace: Option<&str>, by: &ListParams) -> Result<Vec<Value>, Error> {
        let object = ObjectRef { kind: kind.to_owned(), namespace: namespace.map(str::to_owned), name: String::new() };
        let api = self.api(&object)?;
        Ok(self.ask("list", &object, api.list(by)).await?.iter().map(value).collect())
    }

    /// Changes fields of the object of this uid, where all still hold their old values. `dry_run` lets the server
    /// judge without writing.
    pub async fn patch(&self, object: &ObjectRef, uid: &str, changes: &[Change], dry_run: bool) -> Result<(), Error> {
        let api = self.api(object)?;
        let params = PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let mut last = Error::Gone { object: object.clone() };
        for _ in 0..ATTEMPTS {
            let current = self.read(object).await?.ok_or_else(|| Error::Gone { object: object.clone() })?;
            if !uid.is_empty() && text(&current, "/metadata/uid") != uid {
                return Err(Error::Gone { object: object.clone() });
            }
            if let Some(found) = patch::mismatch(&current, changes) {
                return Err(conflict(object, found));
            }
            let operations = serde_json::from_value(Value::Array(guarded(&current, changes)))
                .map_err(|e| Error::Api { message: e.to_string() })?;
            let body = Patch::Json::<()>(operations);
            match self.ask("patch", object, api.patch(&object.name, &params, &body)).await {
                Ok(_) => return Ok(()),
                // A failed test is a 422 like any invalid value: only a moved resourceVersion tells them apart.
                Err(failure) if matches!(failure.code, 409 | 422) && self.moved(object, &current).await? => {
                    last = failure.error;
                }
                Err(failure) => return Err(failure.error),
            }
        }
        Err(last)
    }

    async fn moved(&self, object: &ObjectRef, before: &Value) -> Result<bool, Error> {
        let now = self.read(object).await?;
        Ok(now.is_none_or(|now| text(&now, RESOURCE_VERSION) != text(before, RESOURCE_VERSION)))
    }

    /// Creates an object; false where one of that name is there already.
    pub async fn create(&self, object: &ObjectRef, body: Value, dry_run: bool) -> Result<bool, Error> {
        Ok(self.make(object, body, dry_run).await?.is_some())
    }

    /// Creates an object, and gives it as it was made; none where one of that name is there already.
    pub async fn make(&self, object: &ObjectRef, body: Value, dry_run: bool) -> Result<Option<Value>, Error> {
        let api = self.api(object)?;
        let body: DynamicObject = serde_json::from_value(body).map_err(|e| Error::Api { message: e.to_string() })?;
        let params = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
        match self.ask("create", object, api.create(&params, &body)).await {
            Ok(made) => Ok(Some(value(&made))),
            Err(failure) if failure.code == 409 => Ok(None),
            Err(failure) => Err(failure.error),
        }
    }

    /// Merges `body` into one of this program's own objects (never into anybody else's).
    pub async fn merge(&self, object: &ObjectRef, body: &Value) -> Result<(), Error> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(object)?;
        self.ask("patch", object, api.patch(&object.name, &params, &Patch::Merge(body))).await?;
        Ok(())
    }

    /// Replaces one of this program's own objects; false where its resourceVersion moved.
    pub async fn replace(&self, object: &ObjectRef, body: Value) -> Result<bool, Error> {
        let api = self.api(object)?;
        let body: DynamicObject = serde_json::from_value(body).map_err(|e| Error::Api { message: e.to_string() })?;
        let params = PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) };
        match self.ask("update", object, api.replace(&object.name, &params, &body)).await {
            Ok(_) => Ok(true),
            Err(failure) if matches!(failure.code, 404 | 409) => Ok(false),
            Err(failure) => Err(failure.error),
        }
    }

    /// Deletes the object of this uid; one that is gone is no error.
    pub async fn delete(&self, object: &ObjectRef, uid: Option<&str>, dry_run: bool) -> Result<(), Error> {
        self.remove(object, deletion(uid, dry_run)).await
    }

    /// As [`Writer::delete`], of a pod that its DaemonSet makes anew: it has a second to end. kube-proxy keeps nothing that a
    /// longer wait would save, and one that is stuck would wait out all of its half minute.
    pub async fn delete_pod(&self, object: &ObjectRef, uid: &str, dry_run: bool) -> Result<(), Error> {
        self.remove(object, deletion(Some(uid), dry_run).grace_period(GRACE)).await
    }

    /// Deletes the object as it was read; one that is gone is no error, one that changed since is.
    pub async fn delete_as_read(&self, object: &ObjectRef, read: &Value) -> Result<(), Error> {
        let own = |pointer: &str| Some(text(read, pointer).to_owned()).filter(|t| !t.is_empty());
        let preconditions = Preconditions { uid: own("/metadata/uid"), resource_version: own(RESOURCE_VERSION) };
        self.remove(object, DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }).await
    }

    async fn remove(&self, object: &ObjectRef, params: DeleteParams) -> Result<(), Error> {
        let api = self.api(object)?;
        match self.ask("delete", object, api.delete(&object.name, &params)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.code == 404 => Ok(()),
            Err(failure) if failure.code == 409 => Err(Error::Gone { object: object.clone() }),
            Err(failure) => Err(failure.error),
        }
    }
}

/// Of the object of this uid.
fn deletion(uid: Option<&str>, dry_run: bool) -> DeleteParams {
    let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    DeleteParams { dry_run, preconditions, ..DeleteParams::default() }
}

/// Seconds.
const GRACE: u32 = 1;
const RESOURCE_VERSION: &str = "/metadata/resourceVersion";

/// A failed request: the HTTP code (0 for none) and what it means.
struct Failure {
    code: u16,
    error: Error,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Failure {
    fn of(verb: &'static str, object: &ObjectRef, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self { code: 0, error: Error::Api { message: innermost(error) } };
        };
        let message = status.message.clone();
        let error = match status.code {
            // RBAC and admission both answer 403; RBAC says `User "x" cannot patch resource …`.
            403 if message.contains(" cannot ") => Error::Forbidden {
                verb,
                resource: plural(&object.kind),
                namespace: object.namespace().to_owned(),
                message,
            },
            400 | 403 | 409 | 422 => Error::Refused { object: object.clone(), message },
            _ => Error::Api { message },
        };
        Self { code: status.code, error }
    }
}

/// The JSON Patch of these changes, with all that must hold for it.
fn guarded(current: &Value, changes: &[Change]) -> Vec<Value> {
    let test = |path: &str| json!({"op": "test", "path": path, "value": current.pointer(path)});
    let mut operations = vec![test("/metadata/uid"), test(RESOURCE_VERSION)];
    operations.extend(patch::tests(changes));
    operations.extend(patch::operations(changes));
    operations
}

/// A field that is not what it was expected to be, as an error.
pub fn conflict(object: &ObjectRef, found: patch::Mismatch) -> Error {
    Error::Conflict {
        object: Box::new(object.clone()),
        field: patch::readable(&found.path),
        expected: found.expected,
        found: found.found,
    }
}

/// The text at a pointer, or "".
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

/// The kinds this program reads or writes here, with their API groups.
fn resource(kind: &str) -> Result<ApiResource, Error> {
    let (group, version) = match kind {
        "Service" | "Pod" | "ConfigMap" | "Endpoints" | "Node" => ("", "v1"),
        "Deployment" | "DaemonSet" => ("apps", "v1"),
        "NetworkPolicy" => ("networking.k8s.io", "v1"),
        "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        _ => return Err(Error::Kind { kind: kind.to_owned() }),
    };
    Ok(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)))
}

fn plural(kind: &str) -> String {
    resource(kind).map_or_else(|_| format!("{}s", kind.to_lowercase()), |r| r.plural)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use kube::client::Body;

    use super::*;

    type Seen = Arc<Mutex<Vec<(String, Value)>>>;

    /// A client whose API server is this function: method and body in, code and body out.
    fn client(answer: impl Fn(usize, &str) -> (u16, Value) + Clone + Send + Sync + 'static) -> (Writer, Seen) {
        let seen: Seen = Arc::default();
        let log = seen.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (answer, log) = (answer.clone(), log.clone());
            async move {
                let method = request.method().to_string();
                let what = format!("{method} {}", request.uri());
                let bytes = request.into_body().collect_bytes().await.unwrap_or_default();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let nth = {
                    let mut log = log.lock().unwrap();
                    let nth = log.iter().filter(|(w, _)| w.starts_with(&method)).count();
                    log.push((what, body));
                    nth
                };
                let (code, body) = answer(nth, &method);
                let response = http::Response::builder()
                    .status(code)
                    .header("content-type", "application/json")
                    .body(Body::from(body.to_string().into_bytes()))
                    .unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        (Writer::new(Client::new(service, "default"), None), seen)
    }

    fn service(version: usize, kind: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": kind},
            "metadata": {"name": "p", "namespace": "b", "uid": "u1", "resourceVersion": version.to_string()}})
    }

    fn status(code: u16, message: &str) -> (u16, Value) {
        (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}))
    }

    fn to_node_port() -> [Change; 1] {
        [Change { path: "/spec/type".into(), from: Some(json!("ClusterIP")), to: Some(json!("NodePort")) }]
    }

    fn object() -> ObjectRef {
        ObjectRef::namespaced("Service", "b", "p")
    }

    #[tokio::test]
    async fn a_patch_tests_identity_version_and_old_values() {
        let (writer, seen) = client(|_, _| (200, service(7, "ClusterIP")));
        writer.patch(&object(), "u1", &to_node_port(), true).await.unwrap();
        let seen = seen.lock().unwrap();
        let (what, body) = seen.last().unwrap();
        assert_eq!(what, "PATCH /api/v1/namespaces/b/services/p?&dryRun=All&fieldManager=kubectl-bookaccess");
        assert_eq!(
            *body,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u1"},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "test", "path": "/spec/type", "value": "ClusterIP"},
                {"op": "replace", "path": "/spec/type", "value": "NodePort"},
            ])
        );
    }

    #[tokio::test]
    async fn a_moved_version_is_tried_again_while_the_old_values_hold() {
        let (writer, seen) = client(|nth, method| match (method, nth) {
            ("GET", nth) => (200, service(nth, "ClusterIP")),
            ("PATCH", 0) => status(422, "the server rejected our request due to an error in our request"),
            _ => (200, service(9, "NodePort")),
        });
        writer.patch(&object(), "u1", &to_node_port(), false).await.unwrap();
        assert_eq!(seen.lock().unwrap().iter().filter(|(w, _)| w.starts_with("PATCH")).count(), 2);
    }

    #[tokio::test]
    async fn a_changed_field_is_named_and_nothing_is_written() {
        let (writer, seen) = client(|_, _| (200, service(7, "LoadBalancer")));
        let error = writer.patch(&object(), "u1", &to_node_port(), false).await.unwrap_err();
        assert_eq!(error.to_string(), "service/p: spec.type is LoadBalancer, expected ClusterIP");
        assert!(seen.lock().unwrap().iter().all(|(w, _)| w.starts_with("GET")));
    }

    #[tokio::test]
    async fn another_object_of_the_same_name_is_left_alone() {
        let (writer, _) = client(|_, _| (200, service(7, "ClusterIP")));
        let error = writer.patch(&object(), "u0", &to_node_port(), false).await.unwrap_err();
        assert!(matches!(error, Error::Gone { .. }), "{error}");
    }

    #[tokio::test]
    async fn rights_and_admission_are_told_apart() {
        let refuse = |message: &'static str| {
            client(move |_, method| match method {
                "GET" => (200, service(7, "ClusterIP")),
                _ => status(403, message),
            })
            .0
        };
        let writer = refuse("services \"p\" is forbidden: User \"dev\" cannot patch resource \"services\"");
        let error = writer.patch(&object(), "u1", &to_node_port(), false).await.unwrap_err();
        assert!(
            matches!(&error, Error::Forbidden { verb: "patch", resource, .. } if resource == "services"),
            "{error}"
        );
        let writer = refuse("pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": hostPort");
        let error = writer.patch(&object(), "u1", &to_node_port(), false).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_invalid_value_is_refused_once() {
        let (writer, seen) = client(|_, method| match method {
            "GET" => (200, service(7, "ClusterIP")),
            _ => status(422, "provided port is not in the valid range"),
        });
        let error = writer.patch(&object(), "u1", &to_node_port(), true).await.unwrap_err();
        assert!(error.to_string().contains("valid range"), "{error}");
        assert_eq!(seen.lock().unwrap().iter().filter(|(w, _)| w.starts_with("PATCH")).count(), 1);
    }
}
