//! An API server in memory, for the tests of what is written: objects by path, resourceVersions, dry runs, JSON Patch
//! with tests, merge patches.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::executor::{ForwardRequest, Forwarder, ROLLOUT_LIMIT, Settings};
use super::kube::Writer;

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Writes that were asked for: `METHOD path`, without dry runs.
    writes: Vec<String>,
    /// Requests to be answered by 403: a part of `METHOD path`.
    denied: Vec<String>,
    /// What was asked of it so far, and of the forwarder.
    asked: usize,
    kill: Option<Kill>,
    /// What this said as each request came in.
    watch: Option<Watch>,
    seen: Vec<usize>,
}

type Watch = Arc<dyn Fn() -> usize + Send + Sync>;

/// Where the process dies: at this request, counted from one, which is still served or is not.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    pub at: usize,
    pub served: bool,
}

#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Inner>>, Arc<tokio::sync::Notify>);

impl Server {
    pub fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.0.lock().unwrap();
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        inner.objects.insert(path.to_owned(), object);
    }

    /// The object without what the server itself keeps.
    pub fn get(&self, path: &str) -> Option<Value> {
        let mut object = self.0.lock().unwrap().objects.get(path).cloned()?;
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        Some(object)
    }

    pub fn set(&self, path: &str, pointer: &str, value: Value) {
        let mut object = self.0.lock().unwrap().objects.get(path).cloned().unwrap();
        *object.pointer_mut(pointer).unwrap() = value;
        self.put(path, object);
    }

    pub fn deny(&self, part: &str) {
        self.0.lock().unwrap().denied.push(part.to_owned());
    }

    /// From now on the process lives, and dies where told.
    pub fn kill(&self, kill: Option<Kill>) {
        let mut inner = self.0.lock().unwrap();
        (inner.kill, inner.asked) = (kill, 0);
    }

    pub fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }

    pub fn watch(&self, watch: impl Fn() -> usize + Send + Sync + 'static) {
        self.0.lock().unwrap().watch = Some(Arc::new(watch));
    }

    pub fn seen(&self) -> Vec<usize> {
        self.0.lock().unwrap().seen.clone()
    }

    /// Ends when the process does.
    pub async fn dies(&self) {
        self.1.notified().await;
    }

    /// Does what is asked, unless the process dies before; who died hears no answer.
    pub async fn serve<T>(&self, what: impl FnOnce() -> T) -> T {
        let (dies, serves) = {
            let mut inner = self.0.lock().unwrap();
            inner.asked += 1;
            let seen = inner.watch.as_ref().map(|watch| watch());
            inner.seen.extend(seen);
            let asked = inner.asked;
            let dies = inner.kill.is_some_and(|k| asked >= k.at);
            (dies, inner.kill.is_none_or(|k| asked < k.at || (asked == k.at && k.served)))
        };
        if dies {
            if serves {
                what();
            }
            self.1.notify_one();
            return std::future::pending().await;
        }
        what()
    }

    pub fn writes(&self) -> Vec<String> {
        self.0.lock().unwrap().writes.clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    pub fn writer(&self) -> Writer {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await.unwrap();
                let kind = parts.headers.get("content-type").map(|v| v.to_str().unwrap().to_owned());
                let query = parts.uri.query().unwrap_or_default();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let dry = query.contains("dryRun=All");
                let answer = || {
                    let (method, path) = (parts.method.as_str(), parts.uri.path());
                    server.0.lock().unwrap().answer(method, path, dry, kind.as_deref().unwrap_or_default(), body)
                };
                let (code, answer) = server.serve(answer).await;
                Ok::<_, std::convert::Infallible>(
                    http::Response::builder()
                        .status(code)
                        .header("content-type", "application/json")
                        .body(Body::from(answer.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        Writer::new(Client::new(service, "default"), None)
    }
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "" };
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure"});
    status["code"] = json!(code);
    status["reason"] = json!(reason);
    status["message"] = json!(message);
    (code, status)
}

impl Inner {
    fn answer(&mut self, method: &str, path: &str, dry: bool, kind: &str, body: Value) -> (u16, Value) {
        let what = format!("{method} {path}");
        if self.denied.iter().any(|d| what.contains(d.as_str())) {
            return failure(403, &format!("User \"dev\" cannot {method} resource at {path}"));
        }
        if method != "GET" && !dry {
            self.writes.push(what);
        }
        let found = self.objects.get(path).cloned();
        match (method, found) {
            ("GET", Some(object)) => (200, object),
            ("GET", None) if self.is_list(path) => {
                let under = format!("{path}/");
                let all = path.strip_prefix("/api/v1/").filter(|p| !p.contains('/'));
                let listed =
                    |key: &str| key.starts_with(&under) || all.is_some_and(|a| key.contains(&format!("/{a}/")));
                let items: Vec<&Value> = self.objects.iter().filter(|(k, _)| listed(k)).map(|(_, v)| v).collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let key = format!("{path}/{name}");
                if self.objects.contains_key(&key) {
                    return failure(409, "already exists");
                }
                self.store(&key, body, dry)
            }
            ("PUT", Some(old)) => {
                let same = body["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"];
                if same { self.store(path, body, dry) } else { failure(409, "the object has been modified") }
            }
            ("PATCH", Some(mut object)) if kind.starts_with("application/merge-patch") => {
                merge(&mut object, &body);
                self.store(path, object, dry)
            }
            ("PATCH", Some(mut object)) => match operate(&mut object, &body) {
                true => self.store(path, object, dry),
                false => failure(422, "the server rejected our request due to an error in our request"),
            },
            ("DELETE", Some(object)) => {
                let differs = |field: &str| {
                    let wanted = &body["preconditions"][field];
                    !wanted.is_null() && *wanted != object["metadata"][field]
                };
                if differs("uid") || differs("resourceVersion") {
                    return failure(409, "the preconditions do not hold");
                }
                if !dry {
                    self.objects.remove(path);
                    self.replace(path, &object);
                }
                (200, object)
            }
            _ => failure(404, "not found"),
        }
    }

    /// A pod that a DaemonSet owns is made anew at once, and is ready.
    fn replace(&mut self, path: &str, pod: &Value) {
        if pod["kind"] != "Pod" || pod["metadata"]["ownerReferences"].is_null() {
            return;
        }
        let mut next = pod.clone();
        next["metadata"]["uid"] = Value::Null;
        let name = format!("{}x", pod["metadata"]["name"].as_str().unwrap());
        next["metadata"]["name"] = json!(name);
        let key = format!("{}/{name}", path.rsplit_once('/').unwrap().0);
        self.store(&key, next, false);
    }

    fn is_list(&self, path: &str) -> bool {
        path.ends_with('s') && path.rsplit('/').next().is_some_and(|last| !last.contains('-'))
    }

    fn store(&mut self, path: &str, mut object: Value, dry: bool) -> (u16, Value) {
        if !dry {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
            }
            self.objects.insert(path.to_owned(), object.clone());
        }
        (200, object)
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => {
                object.as_object_mut().unwrap().remove(key);
            }
            value => merge(&mut object[key.as_str()], value),
        }
    }
}

/// RFC 6902, as far as it is used here.
fn operate(object: &mut Value, operations: &Value) -> bool {
    operations.as_array().unwrap().iter().all(|operation| {
        let path = operation["path"].as_str().unwrap();
        let (parent, token) = path.rsplit_once('/').unwrap();
        let token = token.replace("~1", "/").replace("~0", "~");
        let value = operation["value"].clone();
        match operation["op"].as_str().unwrap() {
            "test" => object.pointer(path) == Some(&value),
            "remove" => {
                object.pointer_mut(parent).and_then(Value::as_object_mut).is_some_and(|m| m.remove(&token).is_some())
            }
            "replace" if object.pointer(path).is_none() => false,
            _ => object.pointer_mut(parent).and_then(Value::as_object_mut).map(|m| m.insert(token, value)).is_some(),
        }
    })
}

/// Remembers what it was asked for.
#[derive(Default)]
pub struct Forwards(pub Mutex<Vec<String>>);

impl Forwarder for Forwards {
    fn start<'a>(&'a self, request: &'a ForwardRequest) -> BoxFuture<'a, Result<String, String>> {
        self.0.lock().unwrap().push(format!("start {}", request.service));
        Box::pin(async { Ok("f1".to_owned()) })
    }

    fn stop<'a>(&'a self, _: &'a str, service: &'a str, id: Option<&'a str>) -> BoxFuture<'a, Result<(), String>> {
        self.0.lock().unwrap().push(format!("stop {service} {}", id.unwrap_or("-")));
        Box::pin(async { Ok(()) })
    }
}

pub fn settings(state: &std::path::Path, forwards: &Arc<Forwards>) -> Settings {
    Settings {
        state: state.to_owned(),
        cluster: "cluster-1".to_owned(),
        forwarder: forwards.clone(),
        cancel: Default::default(),
        rollout: ROLLOUT_LIMIT,
    }
}
