//! Secrets are planted wherever a cluster may hold one: none is in the file, and the file is judged as the look was.

use std::collections::BTreeMap;

use bookaccess::model::container;
use bookaccess::model::{Gap, GapReason, Input, Outcome, Probe, Snapshot, Vantage};
use bookaccess::observe::{file, redact};
use k8s_openapi::api::core::v1::{Container, Event, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{from_value, json};

use crate::{findings, fixtures};

/// Each place has its own, so that a failure says which it was.
fn secret(place: &str) -> String {
    format!("S3cr3t-{place}-0815")
}

fn on_metadata(meta: &mut ObjectMeta) {
    let annotations = meta.annotations.get_or_insert_default();
    let applied = json!({"stringData": {"password": secret("applied")}}).to_string();
    annotations.insert("kubectl.kubernetes.io/last-applied-configuration".to_owned(), applied);
    annotations.insert("example.com/api-key".to_owned(), secret("annotation"));
    annotations.insert("k3s.io/node-env".to_owned(), json!({"K3S_TOKEN": secret("k3s-env")}).to_string());
    let fields = json!([{"manager": "kubectl", "fieldsV1": {"f:data": {(secret("managed")): {}}}}]);
    meta.managed_fields = Some(from_value(fields).unwrap());
}

fn on_container(container: &mut Container) {
    let variable = |name: &str, value: String| from_value(json!({"name": name, "value": value})).unwrap();
    let env = container.env.get_or_insert_default();
    env.push(variable("DB_PASSWORD", secret("env")));
    env.push(variable("HTTPS_PROXY", format!("http://user:{}@proxy.example.com:3128", secret("proxy"))));
    let args = container.args.get_or_insert_default();
    args.extend([format!("--db-password={}", secret("flag")), "--join".to_owned(), secret("argument")]);
    let header = json!({"httpGet": {"port": 1, "path": format!("/?token={}", secret("query")),
        "httpHeaders": [{"name": "Authorization", "value": format!("Bearer {}", secret("header"))}]}});
    container.liveness_probe = Some(from_value(header).unwrap());
    let hook = json!({"preStop": {"exec": {"command": ["curl", "-u", secret("hook")]}}});
    container.lifecycle = Some(from_value(hook).unwrap());
}

/// Of a pod's container less is held than of a template's.
fn on_pods_container(container: &mut container::Container) {
    let mut whole: Container = from_value(serde_json::to_value(&*container).unwrap()).unwrap();
    on_container(&mut whole);
    let header = whole.liveness_probe.clone().map(Box::new);
    *container = container::Container::from(&whole);
    // Only where there is none: whether and which port it asks is read.
    container.readiness_probe = container.readiness_probe.take().or(header);
}

fn on_spec(spec: &mut PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    spec.containers.iter_mut().chain(init).for_each(on_container);
}

/// Secrets in every object, log, message and gap that is there, and in some that are not yet.
fn plant(snapshot: &mut Snapshot) {
    let objects = &mut snapshot.objects;
    let proxies = objects.kube_proxy_pods.iter_mut().chain(&mut objects.api_server_pods);
    for pod in objects.pods.iter_mut().chain(proxies) {
        on_metadata(&mut pod.metadata);
        let spec = pod.spec.as_mut();
        let containers = spec.map(|s| s.containers.iter_mut().chain(s.init_containers.iter_mut().flatten()));
        containers.into_iter().flatten().for_each(on_pods_container);
        let ended = json!({"terminated": {"exitCode": 0, "message": format!("token={}", secret("last-words"))}});
        let states = pod.status.as_mut().and_then(|s| s.container_statuses.as_mut());
        for status in states.into_iter().flatten().filter(|s| s.last_state.is_none()) {
            status.last_state = Some(from_value(ended.clone()).unwrap());
        }
    }
    for deployment in &mut objects.deployments {
        on_metadata(&mut deployment.metadata);
        let template = deployment.spec.as_mut().map(|s| &mut s.template);
        template.and_then(|t| t.spec.as_mut()).iter_mut().for_each(|s| on_spec(s));
    }
    for daemon_set in &mut objects.daemon_sets {
        on_metadata(&mut daemon_set.metadata);
        let template = daemon_set.spec.as_mut().map(|s| &mut s.template);
        template.and_then(|t| t.spec.as_mut()).iter_mut().for_each(|s| on_spec(s));
    }
    // The fields' times are read: a Service that nobody changed stays one.
    objects.services.iter_mut().for_each(|o| on_metadata(&mut o.metadata));
    objects.nodes.iter_mut().for_each(|o| on_metadata(&mut o.metadata));
    objects.namespaces.iter_mut().for_each(|o| on_metadata(&mut o.metadata));
    objects.endpoint_slices.iter_mut().for_each(|o| on_metadata(&mut o.metadata));
    for node in &mut objects.nodes {
        let words = json!(["server", "--token", secret("node-args"), "--agent-token", secret("agent")]).to_string();
        let arguments = "rke2.io/node-args".to_owned();
        node.metadata.annotations.get_or_insert_default().entry(arguments).or_insert(words);
    }
    if let Some(config) = &mut objects.kube_proxy_config {
        let data = config.data.get_or_insert_default();
        let kubeconfig = data.entry("kubeconfig.conf".to_owned()).or_default();
        kubeconfig.push_str(&format!(
            "\nusers:\n- user:\n    token: {}\n    client-key-data: {}\n",
            secret("token"),
            secret("key")
        ));
        data.insert("db.properties".to_owned(), format!("user=sa\npass={}\n", secret("config-map")));
        config.binary_data = Some(BTreeMap::new());
    }
    for log in objects.kube_proxy_logs.values_mut().chain(objects.crash_logs.values_mut()) {
        log.insert_str(0, &format!("I0101 00:00:00.000000 1 x.go:1] Authorization: Bearer {}\n", secret("log")));
    }
    objects.crash_logs.insert("elsewhere/pod".to_owned(), format!("connecting with password={}", secret("crash")));
    let event: Event = from_value(json!({
        "metadata": {"name": "e", "namespace": "elsewhere"}, "involvedObject": {"namespace": "elsewhere", "name": "e"},
        "message": format!("pull failed: http://robot:{}@registry.example.com", secret("event")),
    }))
    .unwrap();
    objects.events.push(event);
    let message = format!("proxyconnect tcp: http://user:{}@proxy.example.com:3128: refused", secret("gap"));
    let reason = GapReason::Failed { message: message.clone() };
    snapshot.gaps.push(Gap { input: Input::PodLogs, subject: Some("elsewhere".to_owned()), reason });
    snapshot.probes.push(Probe {
        vantage: Vantage::NodeProxy,
        target: Some("elsewhere/service".to_owned()),
        host: "elsewhere".to_owned(),
        port: 1,
        node: None,
        pod: None,
        outcome: Outcome::Other { message },
        millis: 0,
    });
}

#[test]
fn no_secret_is_in_the_file_and_the_file_is_judged_as_the_look_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot.json");
    for (name, fixture) in fixtures() {
        let mut look = fixture.clone();
        plant(&mut look);
        assert!(serde_json::to_string(&look).unwrap().contains("S3cr3t-"), "{name}: nothing was planted");
        redact::words(&mut look);
        let seen = findings(&look);
        file::save(&redact::redact(look), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        if let Some(at) = text.find("S3cr3t-") {
            panic!("{name}: {}", &text[at.saturating_sub(200)..(at + 40).min(text.len())]);
        }
        assert_eq!(findings(&file::read(&path).unwrap()), seen, "{name}");
        assert!(!serde_json::to_string(&seen).unwrap().contains("S3cr3t-"), "{name}: {seen:?}");
    }
}

#[test]
fn to_redact_twice_changes_nothing_more() {
    for (name, fixture) in fixtures() {
        let mut look = fixture.clone();
        plant(&mut look);
        let once = redact::redact(look);
        assert_eq!(redact::redact(once.clone()), once, "{name}");
    }
}

#[test]
fn of_what_an_application_said_only_what_a_check_reads_is_kept() {
    let (_, fixture) = fixtures().iter().find(|(name, _)| name == "ba2005").unwrap();
    let mut look = fixture.clone();
    look.objects.crash_logs.values_mut().for_each(|said| said.push_str("ordinary words\n"));
    let kept: Vec<String> = redact::redact(look).objects.crash_logs.into_values().collect();
    assert_eq!(kept, ["OSError: [Errno 97] Address family not supported by protocol"]);
}
