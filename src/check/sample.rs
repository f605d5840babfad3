//! For the checks' own tests: a healthy snapshot to break in one place.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Report, run};
use crate::facts::Facts;
use crate::model::{Code, Gap, GapReason, Input, Severity, Snapshot};

/// A snapshot as JSON, so that a test says in one line what it changes.
pub(crate) struct Sample(pub Value);

fn read(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

impl Sample {
    /// A kubeadm cluster, seen as root on its control-plane node; the pod runs on the worker.
    pub(crate) fn healthy() -> Self {
        static READ: LazyLock<Value> = LazyLock::new(|| read(include_str!("testdata/healthy_kubeadm.yaml")));
        Self(READ.clone())
    }

    /// The same cluster, seen from a laptop.
    pub(crate) fn from_laptop() -> Self {
        static READ: LazyLock<Value> = LazyLock::new(|| read(include_str!("testdata/healthy_laptop.yaml")));
        Self(READ.clone())
    }

    pub(crate) fn objects(&mut self, list: &str) -> &mut Value {
        &mut self.0["objects"][list]
    }

    /// The Service productpage.
    pub(crate) fn service(&mut self) -> &mut Value {
        &mut self.0["objects"]["services"][0]
    }

    /// Its pod.
    pub(crate) fn pod(&mut self) -> &mut Value {
        &mut self.0["objects"]["pods"][0]
    }

    /// Its Deployment.
    pub(crate) fn deployment(&mut self) -> &mut Value {
        &mut self.0["objects"]["deployments"][0]
    }

    /// The kube-proxy DaemonSet.
    pub(crate) fn daemon_set(&mut self) -> &mut Value {
        &mut self.0["objects"]["daemonSets"][0]
    }

    /// One more object of a list.
    pub(crate) fn add(&mut self, list: &str, object: Value) {
        push(&mut self.0["objects"][list], object);
    }

    /// A second replica, ready like the first; `outcome` is what the API server's proxy to it brings.
    pub(crate) fn second_pod(&mut self, name: &str, ip: &str, outcome: &str) {
        let mut pod = self.pod().clone();
        pod["metadata"]["name"] = json!(name);
        pod["status"]["podIP"] = json!(ip);
        self.add("pods", pod);
        let mut endpoint = self.0["objects"]["endpointSlices"][0]["endpoints"][0].clone();
        endpoint["addresses"] = json!([ip]);
        endpoint["targetRef"]["name"] = json!(name);
        push(&mut self.0["objects"]["endpointSlices"][0]["endpoints"], endpoint);
        let probe = json!({"vantage": "podProxy", "target": "bookinfo/productpage", "host": format!("bookinfo/{name}"),
            "port": 9080, "pod": name, "outcome": outcome, "millis": 2});
        self.probe(probe);
    }

    /// One more probe.
    pub(crate) fn probe(&mut self, probe: Value) {
        push(&mut self.0["probes"], probe);
    }

    /// No endpoint, no pod of the page.
    pub(crate) fn without_pods(&mut self) {
        self.0["objects"]["pods"] = json!([]);
        self.0["objects"]["endpointSlices"][0]["endpoints"] = json!([]);
    }

    /// The pod's endpoint is not ready.
    pub(crate) fn unready(&mut self) {
        let conditions = json!({"ready": false, "serving": false, "terminating": false});
        self.0["objects"]["endpointSlices"][0]["endpoints"][0]["conditions"] = conditions;
        self.pod()["status"]["conditions"] =
            json!([{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]);
    }

    /// What every probe at the nodePort from outside brings.
    pub(crate) fn answer(&mut self, outcome: Value) {
        self.probes(&["outsider", "client"], Some(30080), outcome);
    }

    /// What every probe from these vantages brings.
    pub(crate) fn probes(&mut self, vantages: &[&str], port: Option<u64>, outcome: Value) {
        for probe in self.0["probes"].as_array_mut().unwrap() {
            let from = probe["vantage"].as_str().unwrap();
            if !vantages.contains(&from) || port.is_some_and(|p| probe["port"].as_u64() != Some(p)) {
                continue;
            }
            let probe = probe.as_object_mut().unwrap();
            for key in ["outcome", "status", "right", "message"] {
                probe.remove(key);
            }
            probe.extend(outcome.as_object().unwrap().clone());
        }
    }

    /// Without the probes from one vantage.
    pub(crate) fn blind(&mut self, vantage: &str) {
        self.0["probes"].as_array_mut().unwrap().retain(|p| p["vantage"] != vantage);
    }

    pub(crate) fn gap(&mut self, input: Input, reason: GapReason) {
        let gap = serde_json::to_value(Gap { input, subject: None, reason }).unwrap();
        push(&mut self.0["gaps"], gap);
    }

    pub(crate) fn with_facts<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let snapshot: Snapshot = serde_json::from_value(self.0.clone()).unwrap();
        look(&Facts::derive(&snapshot))
    }

    pub(crate) fn report(&self) -> Report {
        self.with_facts(run)
    }

    /// Codes and severities, in order.
    pub(crate) fn said(&self) -> Vec<(u16, Severity)> {
        self.report().findings.iter().map(|f| (f.code.0, f.severity)).collect()
    }

    /// The finding of one code; the test fails where it is not there.
    pub(crate) fn finding(&self, code: u16) -> crate::model::Finding {
        let report = self.report();
        let codes: Vec<_> = report.findings.iter().map(|f| f.code).collect();
        let found = report.findings.into_iter().find(|f| f.code == Code(code));
        found.unwrap_or_else(|| panic!("no BA{code}, but {codes:?}"))
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(item);
}
