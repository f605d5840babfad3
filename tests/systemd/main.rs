//! The binary as a service of systemd's, with a stand-in for systemd: what it says, the sockets it has kept over its own
//! death, and its numbers. A program of its own, as descriptors are handed to a child here.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare fails")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::apiserver::Api;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

const LIMIT: Duration = Duration::from_secs(30);

/// The half of systemd that listens and keeps.
struct Systemd {
    socket: UnixDatagram,
    kept: Vec<(String, OwnedFd)>,
}

impl Systemd {
    fn new(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket, kept: Vec::new() }
    }

    /// Obeys until a message holds this line.
    fn until(&mut self, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.hear().lines().any(|line| line == wanted) {
            assert!(Instant::now() < deadline, "never {wanted}");
        }
    }

    fn hear(&mut self) -> String {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let got = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let text = String::from_utf8(buffer[..got.expect("systemd is told something").bytes].to_vec()).unwrap();
        let name = text.lines().find_map(|l| l.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
        if text.starts_with("FDSTOREREMOVE=1") {
            self.kept.retain(|(kept, _)| *kept != name);
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(all) = message {
                assert!(text.starts_with("FDSTORE=1"), "{text}");
                self.kept.extend(all.map(|fd| (name.clone(), fd)));
            }
        }
        text
    }
}

struct Place {
    home: tempfile::TempDir,
    _api: Api,
}

impl Place {
    fn new() -> Self {
        let (home, api) = (tempfile::tempdir().unwrap(), Api::start(page("first page")));
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), api.kubeconfig()).unwrap();
        Self { home, _api: api }
    }

    fn surround(&self, command: &mut Command) {
        command.env_clear().current_dir(self.home.path()).stdin(Stdio::null());
        command.env("HOME", self.home.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("BOOKACCESS_STATE_DIR", self.home.path().join("state")).env("BOOKACCESS_LANG", "en");
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bookaccess"));
        self.surround(command.args(line.split_whitespace()));
        command.output().unwrap()
    }

    /// Starts the service as systemd does, with what was kept as descriptors from 3 on.
    fn start(&self, line: &str, kept: &[(String, OwnedFd)]) -> Service {
        const FREE: i32 = 100;
        let copies: Vec<OwnedFd> = kept
            .iter()
            .map(|(_, fd)| {
                let copy = rustix::io::fcntl_dupfd_cloexec(fd, FREE).unwrap();
                rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
                copy
            })
            .collect();
        let moves: String =
            copies.iter().enumerate().map(|(n, fd)| format!(" {}<&{1} {1}<&-", n + 3, fd.as_raw_fd())).collect();
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let mut command = Command::new("bash");
        command.args(["-c", &format!("export LISTEN_PID=$$; exec \"$0\" \"$@\"{moves}")]);
        command.arg(env!("CARGO_BIN_EXE_kubectl-bookaccess")).args(line.split_whitespace());
        self.surround(&mut command);
        command.env("NOTIFY_SOCKET", self.home.path().join("notify")).env("WATCHDOG_USEC", "600000");
        if !kept.is_empty() {
            command.env("LISTEN_FDS", kept.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        Service(command.spawn().unwrap())
    }
}

struct Service(Child);

impl Service {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn page(text: &'static str) -> SocketAddr {
    e2e::page::serve("127.0.0.1", text).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn send(port: u16, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn ask(port: u16, text: &str) -> String {
    let mut all = String::new();
    send(port, text).read_to_string(&mut all).unwrap();
    all
}

/// Every sample of a page of metrics, by name and labels. What is not of the format fails.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    let mut typed: Vec<&str> = Vec::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind) && !typed.contains(&name), "{line}");
            typed.push(name);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert!(family.starts_with(typed.last().unwrap()), "{line} without its type");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    samples
}

#[test]
fn a_service_outlives_its_own_death_with_its_sockets() {
    let place = Place::new();
    let mut systemd = Systemd::new(&place.home.path().join("notify"));
    let (port, metrics) = (free_port(), free_port());
    let line = format!(
        "forward service svc/productpage {port}:http --mode=direct --address=127.0.0.1 --metrics=127.0.0.1:{metrics}"
    );
    let first = place.start(&line, &[]);
    systemd.until("READY=1");
    systemd.until("WATCHDOG=1");
    assert_eq!(ask(port, "hello\n"), "first page");
    let deadline = Instant::now() + LIMIT;
    let numbers = loop {
        let numbers = samples(&ask(metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        if numbers["bookaccess_connections"] == 0.0 {
            break numbers;
        }
        assert!(Instant::now() < deadline, "{numbers:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(numbers["bookaccess_connections_accepted_total"], 1.0);
    assert_eq!(numbers["bookaccess_connections_carried_total{carrier=\"direct\"}"], 1.0);
    let served: f64 = numbers.iter().filter(|(n, _)| n.contains("result=\"served\"")).map(|(_, v)| v).sum();
    assert_eq!(served, 1.0, "{numbers:?}");
    assert_eq!(numbers["bookaccess_open_seconds_count"], 1.0);
    assert_eq!(numbers["bookaccess_open_seconds_bucket{le=\"+Inf\"}"], 1.0);
    assert!(ask(metrics, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));

    first.signal("-9");
    drop(first);
    // Nobody is there to accept it, and it is not refused.
    let mut waiting = send(port, "hello\n");
    let second = place.start(&line, &systemd.kept);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    drop(waiting);
    assert_eq!(answer, "first page");
    systemd.until("READY=1");
    assert_eq!(ask(port, "hello\n"), "first page");
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = place.run("forward status -o json");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        if status["items"][0]["numbers"]["byPod"][0]["served"] == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        std::thread::sleep(Duration::from_millis(50));
    }

    second.signal("-TERM");
    systemd.until("STOPPING=1");
    let mut second = second;
    assert!(second.0.wait().unwrap().success());
    systemd.kept.clear();
    assert_eq!(TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// `systemctl` as far as a restart goes: tells the test the words it was called with, and waits until that has obeyed.
const SYSTEMCTL: &str =
    "#!/bin/sh\necho \"$@\" > \"$HOME/.asked\"\nmv \"$HOME/.asked\" \"$HOME/asked\"\nread done < \"$HOME/obeyed\"\n";

#[test]
fn a_restart_of_a_service_is_systemds_and_is_said() {
    let place = Place::new();
    let home = place.home.path();
    let mut systemd = Systemd::new(&home.join("notify"));
    let port = free_port();
    let line = format!("forward service svc/productpage {port}:http --mode=direct --address=127.0.0.1");
    let mut first = place.start(&line, &[]);
    systemd.until("READY=1");
    let bin = home.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("systemctl"), SYSTEMCTL).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(bin.join("systemctl")).status().unwrap().success());
    assert!(Command::new("mkfifo").arg(home.join("obeyed")).status().unwrap().success());

    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bookaccess"));
    place.surround(command.args(["forward", "restart"]));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", bin.display())).stdout(Stdio::piped()).stderr(Stdio::piped());
    let restart = command.spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let asked = loop {
        if let Ok(asked) = std::fs::read_to_string(home.join("asked")) {
            break asked;
        }
        assert!(Instant::now() < deadline, "systemctl is not asked");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(asked.trim(), format!("restart kubectl-bookaccess-bookinfo-productpage-{port}.service"));
    first.signal("-TERM");
    systemd.until("STOPPING=1");
    assert!(first.0.wait().unwrap().success());
    // Nobody is there, and nobody is refused.
    let mut waiting = send(port, "hello\n");
    let second = place.start(&line, &systemd.kept);
    systemd.until("READY=1");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "first page");
    // It reads there already: this opens at once.
    std::fs::write(home.join("obeyed"), "done\n").unwrap();
    let told = restart.wait_with_output().unwrap();
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.success() && said.contains(&format!("(pid {})", second.0.id())), "{said}");
    assert!(said.contains("Forwarding in the background") && said.contains(&asked.trim().to_owned()), "{said}");
}

#[test]
fn a_service_that_hangs_gives_no_sign_of_life() {
    let place = Place::new();
    let mut systemd = Systemd::new(&place.home.path().join("notify"));
    let service =
        place.start(&format!("forward service svc/productpage {}:http --address=127.0.0.1", free_port()), &[]);
    systemd.until("WATCHDOG=1");
    service.signal("-STOP");
    systemd.socket.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    let mut buffer = [0; 4096];
    // What was said before is heard first.
    let silence = loop {
        if let Err(error) = systemd.socket.recv(&mut buffer) {
            break error.kind();
        }
    };
    assert_eq!(silence, ErrorKind::WouldBlock);
}

#[test]
fn a_service_that_cannot_begin_says_why() {
    let place = Place::new();
    let mut systemd = Systemd::new(&place.home.path().join("notify"));
    let mut service = place.start("forward service svc/nowhere 0:http", &[]);
    let said = systemd.hear();
    assert!(said.starts_with("STATUS=") && said.contains("nowhere"), "{said}");
    assert!(!service.0.wait().unwrap().success());
}

#[test]
fn a_unit_is_printed_and_nothing_starts() {
    let place = Place::new();
    let printed = place.run("forward start svc/productpage 30080:http --address 10.0.0.1 --print-unit");
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.status.success(), "{text}");
    let command = text.lines().find(|l| l.starts_with("ExecStart=")).unwrap();
    assert!(command.contains(" forward service svc/productpage 30080:http --namespace=bookinfo "), "{command}");
    assert!(!place.home.path().join("state/forwards").exists());
    let refused = place.run("forward start svc/productpage --print-unit --token x");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}
