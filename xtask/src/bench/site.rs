//! Where it is measured: a cluster with the fast server on its control plane, and the client outside.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::{Cluster, Node};
use e2e::plugin;
use serde::Deserialize;
use serde_json::{Value, json};

use super::process;
use crate::provider::standin;
use crate::{run, suite};

/// Namespace, Deployment and Service that are measured.
pub const NAME: &str = "bench";
/// The Service's nodePort.
pub const NODE_PORT: u16 = 30090;
/// Where the server listens in its pod.
pub const POD_PORT: u16 = 9080;
/// Connections in TIME_WAIT that a namespace may hold when a run begins: the cluster's own probes make some.
const LEFT_OVER: u64 = 300;
/// The longest load: a transfer through the slowest row.
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// What `standin load` prints.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    pub seconds: f64,
    pub bytes: u64,
    pub answers: u64,
    pub failed: u64,
    pub failures: Vec<String>,
    pub held: u64,
    pub quantiles_us: Quantiles,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
}

impl Seen {
    /// Connections that were opened: those that stood from the start, else one for each answer.
    pub fn opened(&self) -> u64 {
        if self.held > 0 { self.held } else { self.answers }
    }
}

/// A cluster made ready for measurements.
pub struct Site {
    pub cluster: Cluster,
    pub pod_address: String,
    /// The load client, as the outside client sees it.
    load: String,
    /// Our program, on the control plane.
    pub product: String,
    /// Flags of ours that lift the limits a single client meets, where this binary has them.
    pub unlimited: Vec<String>,
    /// A process in each network namespace that packets pass: client, gateway, control plane, pod.
    namespaces: Vec<u32>,
}

impl Site {
    /// Puts the server and the programs in their places. The client gets all ports: with the usual range a second of
    /// new connections would run out of them.
    pub fn prepare(cluster: Cluster, binary: &Path) -> Result<Self> {
        // A former run's may still be on its way out, and would take the new objects with it.
        run::wait_for("the former namespace to be gone", Duration::from_secs(60), || {
            let namespace =
                cluster.kubectl(&["get", "namespace", NAME, "--ignore-not-found", "-o", "jsonpath={.status.phase}"])?;
            ensure!(namespace != "Terminating", "it is terminating");
            Ok(())
        })?;
        cluster.apply(&objects(&cluster.control_plane()?.place.name).to_string())?;
        cluster
            .kubectl(&["rollout", "status", "-n", NAME, "deployment/bench", "--timeout=60s"])
            .with_context(|| e2e::app::pods(&cluster, NAME))?;
        let pods = cluster.get(&["pods", "-n", NAME, "-l", "app=bench"])?;
        let pod_address = pods["items"][0]["status"]["podIP"].as_str().context("the pod has no address")?.to_owned();
        let place = &cluster.control_plane()?.place;
        let load = shown(&plugin::put(&cluster.client, &standin::program(), "standin")?);
        let product = shown(&plugin::put(place, binary, "kubectl-bookaccess")?);
        let help = place.run(&["env", "LANG=C.UTF-8", &product, "forward", "--help"], Duration::from_secs(10))?;
        let has = |flag: &&str| help.stdout.contains(*flag);
        let unlimited = ["--max-connections", "--max-per-client"].into_iter().filter(has);
        let unlimited = unlimited.flat_map(|flag| [flag.to_owned(), "20000".to_owned()]).collect();
        let node = member(&place.enter)?;
        let pod = process::below(node)
            .into_iter()
            .find(|pid| is_server(*pid))
            .context("no process of the server on the control plane")?;
        let client = member(&cluster.client.enter)?;
        let ports = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range";
        run::output(&mut run::command(&["nsenter", &format!("--target={client}"), "--net", "sh", "-ec", ports]))?;
        let namespaces = vec![client, member(&cluster.gateway.enter)?, node, pod];
        Ok(Self { pod_address, load, product, unlimited, namespaces, cluster })
    }

    pub fn node(&self) -> Result<&Node> {
        self.cluster.control_plane()
    }

    /// Runs the load client outside, against a port of the public address.
    pub fn load(&self, kind: &str, port: u16, flags: &[&str]) -> Result<Seen> {
        let address = format!("{}:{port}", self.cluster.public_address);
        let argv = [&[self.load.as_str(), "load", kind, &address], flags].concat();
        let text = self.cluster.client.run(&argv, LOAD_LIMIT)?.success()?;
        serde_json::from_str(&text).with_context(|| format!("the load's result: {text}"))
    }

    /// Opens connections that stay until the result is dropped.
    pub fn hold(&self, port: u16, connections: usize) -> Result<Held> {
        let address = format!("{}:{port}", self.cluster.public_address);
        let mut command = run::command(&self.cluster.client.enter);
        command.args([&self.load, "load", "idle", &address, "--connections", &connections.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the load")?;
        let lines = suite::lines(child.stdout.take());
        let held = HeldChild(child);
        let said = run::wait_for("the connections stand", LOAD_LIMIT, || match lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => bail!("the load says nothing yet"),
        })?;
        let line = said.context("the load ended without a result")?;
        let seen = serde_json::from_str(&line).with_context(|| format!("the load's result: {line:?}"))?;
        Ok(Held { seen, _child: held })
    }

    /// Forgets what former connections left in conntrack and in TIME_WAIT, and waits until it is gone: ports and
    /// entries that run out would be measured instead.
    pub fn settle(&self) -> Result<()> {
        for pid in &self.namespaces {
            run::wait_for("connections of the last run to be gone", Duration::from_secs(10), || {
                let enter = format!("--target={pid}");
                let clean = "conntrack -F 2>/dev/null; ss -H -K -t state time-wait >/dev/null";
                run::output(&mut run::command(&["nsenter", &enter, "--net", "sh", "-c", clean]))?;
                let left = time_wait(&fs::read_to_string(format!("/proc/{pid}/net/sockstat"))?)?;
                ensure!(left <= LEFT_OVER, "{left} connections in TIME_WAIT");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether a lease of ours on the control plane leads the nodePort to endpoints by the kernel.
    pub fn leads_by_kernel(&self) -> Result<bool> {
        let maps = self.node()?.place.shell("nft list maps")?;
        Ok(leased(&maps, NODE_PORT))
    }

    /// Connections that our rules on the control plane have led to endpoints.
    pub fn kernel_connections(&self) -> Result<u64> {
        let text = self.node()?.place.shell("nft -j list counters")?;
        Ok(carried(&serde_json::from_str(&text).context("nft's JSON")?))
    }

    /// Port-forwards that the API server has begun since its start.
    pub fn port_forwards(&self) -> Result<u64> {
        Ok(begun(&self.cluster.kubectl(&["get", "--raw", "/metrics"])?))
    }

    /// Takes away what was put onto a cluster that stays.
    pub fn clear(&self) -> Result<()> {
        self.cluster.kubectl(&["delete", "namespace", NAME, "--wait=false"]).map(drop)
    }
}

/// Idle connections.
pub struct Held {
    pub seen: Seen,
    _child: HeldChild,
}

struct HeldChild(Child);

impl Drop for HeldChild {
    fn drop(&mut self) {
        // It ends with its standard input; one that does not is killed by way of nsenter's end.
        drop(self.0.stdin.take());
        let ended = run::wait_for("the load's end", Duration::from_secs(5), || {
            self.0.try_wait()?.context("still running").map(drop)
        });
        if ended.is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The first process of a member, from the words that enter it.
fn member(enter: &[String]) -> Result<u32> {
    let target = enter.iter().find_map(|word| word.strip_prefix("--target="));
    target.and_then(|pid| pid.parse().ok()).context("the cluster is not of provider native")
}

fn is_server(pid: u32) -> bool {
    let starts = |file: &str, what: &[u8]| fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|b| b.starts_with(what));
    let role = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    starts("cmdline", b"/standin\0") && role.split(|b| *b == 0).any(|variable| variable == b"ROLE=bench")
}

/// Whether a map `kernel` of a table of ours has an element of that port.
fn leased(maps: &str, port: u16) -> bool {
    let ours = maps.split("table ").filter(|table| table.split_whitespace().nth(1).is_some_and(is_ours));
    let mut kernel = ours.flat_map(|table| table.split("map ")).filter(|map| map.starts_with("kernel {"));
    kernel.any(|map| map.contains(&format!(". {port} ")))
}

fn is_ours(table: &str) -> bool {
    table.starts_with("bookaccess_")
}

/// The sum of the counters `pair_N` of our tables: each counts the first packet of a connection.
fn carried(counters: &Value) -> u64 {
    let list = counters["nftables"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|entry| &entry["counter"]);
    let ours = list.filter(|counter| {
        counter["table"].as_str().is_some_and(is_ours)
            && counter["name"].as_str().is_some_and(|name| name.starts_with("pair_"))
    });
    ours.filter_map(|counter| counter["packets"].as_u64()).sum()
}

/// Those that have ended are counted, those that go on are a gauge.
fn begun(metrics: &str) -> u64 {
    let names = ["apiserver_request_total{", "apiserver_longrunning_requests{"];
    let lines = metrics
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)) && line.contains("subresource=\"portforward\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// `tw` of /proc/net/sockstat.
fn time_wait(text: &str) -> Result<u64> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "tw").skip(1);
    words.next().and_then(|count| count.parse().ok()).context("no tw in sockstat")
}

/// No limit on CPU: it would be measured instead.
fn objects(node: &str) -> serde_json::Value {
    let meta = json!({"name": NAME, "namespace": NAME});
    let container = json!({
        "name": NAME, "image": standin::IMAGE, "imagePullPolicy": "Never",
        "env": [{"name": "ROLE", "value": "bench"}],
        "ports": [{"name": "http", "containerPort": POD_PORT}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": {
                "nodeSelector": {"kubernetes.io/hostname": node},
                "tolerations": [{"operator": "Exists"}],
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [container],
            }},
        }},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {
            "type": "NodePort",
            "selector": {"app": NAME},
            "ports": [{"name": "http", "port": POD_PORT, "targetPort": "http", "nodePort": NODE_PORT}],
        }},
    ]})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_member_is_found_by_how_it_is_entered() {
        let enter = ["nsenter", "--target=42", "--mount"].map(String::from);
        assert_eq!(member(&enter).unwrap(), 42);
        assert!(member(&["docker".to_owned()]).is_err());
    }

    #[test]
    fn a_lease_of_ours_is_told_from_rules_of_others() {
        let maps = |table: &str, map: &str, elements: &str| {
            format!("table ip {table} {{\n\tmap {map} {{\n\t\ttype x : verdict\n{elements}\t}}\n}}\n")
        };
        let element = "\t\telements = { 10.0.0.1 . 30090 expires 2s : goto pair_0 }\n";
        assert!(leased(&(maps("kube-proxy", "kernel", "") + &maps("bookaccess_a", "kernel", element)), 30090));
        for other in [
            maps("kube-proxy", "kernel", element),
            maps("bookaccess_a", "front", element),
            maps("bookaccess_a", "kernel", ""),
            maps("bookaccess_a", "kernel", "") + &maps("bookaccess_a", "front", element),
        ] {
            assert!(!leased(&other, 30090), "{other}");
        }
        let counter = |table: &str, name: &str| json!({"counter": {"table": table, "name": name, "packets": 3}});
        let list = json!({"nftables": [{"metainfo": {}}, counter("bookaccess_a", "pair_0"), counter("bookaccess_a", "pair_1"),
            counter("bookaccess_a", "x"), counter("other", "pair_0")]});
        assert_eq!(carried(&list), 6);
    }

    #[test]
    fn port_forwards_are_counted_whether_ended_or_not() {
        let metrics = "# HELP x\napiserver_request_total{code=\"101\",subresource=\"portforward\",verb=\"CONNECT\"} 7\n\
            apiserver_request_total{code=\"200\",subresource=\"\"} 99\n\
            apiserver_longrunning_requests{resource=\"pods\",subresource=\"portforward\"} 2\n";
        assert_eq!(begun(metrics), 9);
    }

    #[test]
    fn time_wait_is_read() {
        let text = "sockets: used 5\nTCP: inuse 0 orphan 6 tw 750 alloc 770 mem 88\nUDP: inuse 0 mem 0\n";
        assert_eq!(time_wait(text).unwrap(), 750);
        assert!(time_wait("sockets: used 5").is_err());
    }
}
