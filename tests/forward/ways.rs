//! One running forward, ours or kubectl's, and the ways it can lead to the pod.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use e2e::apiserver::{Api, Counted, Refusal, Rung};

use super::LIMIT;

/// How the bytes go to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Direct,
    /// SPDY right behind the upgrade.
    Spdy,
    /// SPDY in WebSocket messages, because the way to the API server knows no other.
    Tunnelled,
    /// v4 channels: the API server knows nothing better.
    Channel,
    /// `kubectl port-forward`, for comparison.
    Kubectl,
}

impl Way {
    /// Makes the API server refuse what is better than this.
    fn prepare(self, api: &Api) {
        let refused: &[Rung] = match self {
            Way::Direct | Way::Spdy | Way::Kubectl => &[],
            Way::Tunnelled => &[Rung::Spdy],
            Way::Channel => &[Rung::Spdy, Rung::Tunnelled],
        };
        for rung in refused {
            api.faults().refuse(*rung, Some(Refusal::no_such_rung(*rung)));
        }
    }

    /// Whether nothing but this way was used.
    pub fn is_all_of(self, counted: Counted) -> bool {
        let used = (counted.spdy > 0, counted.tunnelled > 0, counted.channel > 0);
        match self {
            Way::Direct => used == (false, false, false),
            Way::Spdy => used == (true, false, false),
            Way::Tunnelled => used == (false, true, false),
            Way::Channel => used == (false, false, true),
            Way::Kubectl => true,
        }
    }
}

/// kubectl on PATH, or the one that the test clusters are built with.
pub fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let built = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".cache/kubectl-bookaccess");
    let built = std::fs::read_dir(built).into_iter().flatten().flatten().map(|entry| entry.path());
    std::env::split_paths(&path).chain(built).map(|folder| folder.join("kubectl")).find(|file| file.is_file())
}

/// A forward in the foreground. It ends with the value.
pub struct Running {
    child: Child,
    /// Where the Service's ports are reached, by their names.
    pub at: BTreeMap<String, SocketAddr>,
    _home: tempfile::TempDir,
}

impl Running {
    /// Of these ports of pod-0, by name and number, on free ports of loopback. The error says that it does not begin.
    pub fn start(way: Way, api: &Api, ports: &[(&str, u16)], more: &str) -> Result<Self, String> {
        way.prepare(api);
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config");
        std::fs::write(&config, api.kubeconfig()).unwrap();
        let mut command = match way {
            Way::Kubectl => {
                let mut command = Command::new(kubectl().expect("asked only where it is present"));
                command.args(["port-forward", "pod/pod-0", "--address", "127.0.0.1"]);
                command.args(ports.iter().map(|(_, port)| format!(":{port}")));
                command
            }
            _ => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bookaccess"));
                command.args(["forward", "svc/productpage", "--address", "127.0.0.1", "--mode"]);
                command.arg(if way == Way::Direct { "direct" } else { "tunnel" }).args(more.split_whitespace());
                command.args(ports.iter().map(|(name, _)| format!(":{name}")));
                command
            }
        };
        command.env_clear().env("HOME", home.path()).env("KUBECONFIG", config).env("BOOKACCESS_LANG", "en");
        command.env("BOOKACCESS_STATE_DIR", home.path().join("state"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, said) = mpsc::channel();
        // Reads on until the child ends: kubectl speaks of every connection and would wait for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(told.send(line))));
        let mut running = Self { child, at: BTreeMap::new(), _home: home };
        for (name, _) in ports {
            let address = loop {
                let line = said.recv_timeout(LIMIT).map_err(|_| format!("{way:?} does not begin to forward"))?;
                if let Some(address) = line.split(['/', ' ']).find_map(|word| word.parse().ok()) {
                    break address;
                }
            };
            running.at.insert((*name).to_owned(), address);
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, as kubectl does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
