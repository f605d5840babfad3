//! Background forwards of the binary, against an API server in memory: their life, their files, their end.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare fails")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod channels;
mod clients;
mod descriptors;
mod exactness;
#[cfg(target_os = "linux")]
mod front;
#[cfg(target_os = "linux")]
mod handover;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod leak;
mod logs;
#[cfg(target_os = "linux")]
mod net;
mod pathologies;
mod refused;
#[cfg(target_os = "linux")]
mod rungs;
mod ways;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::apiserver::Api;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// A home with a kubeconfig, an API server, a page behind it, and the binary. Whatever still runs at the end is stopped.
struct Place {
    home: tempfile::TempDir,
    api: Api,
}

impl Place {
    fn new() -> Self {
        Self::of(Api::start(page("first page")))
    }

    fn of(api: Api) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), api.kubeconfig()).unwrap();
        Self { home, api }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bookaccess"));
        command.args(line.split_whitespace()).env_clear().current_dir(self.home.path()).stdin(Stdio::null());
        command.env("HOME", self.home.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("BOOKACCESS_STATE_DIR", self.state()).env("BOOKACCESS_LANG", "en");
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a forward on a free port; its address.
    fn start(&self, more: &str) -> SocketAddr {
        let urls = self.ok(&format!("forward start svc/productpage :http --mode direct --address 127.0.0.1 {more}"));
        address(urls.trim())
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.state().join("forwards")) else { return Vec::new() };
        entries.map(|e| e.unwrap().path()).collect()
    }

    fn file(&self, suffix: &str) -> PathBuf {
        let files = self.files();
        let found = files.iter().find(|f| f.to_str().unwrap().ends_with(suffix));
        found.unwrap_or_else(|| panic!("no {suffix} in {files:?}")).clone()
    }

    fn status(&self) -> Value {
        let output = self.run("forward status -o json");
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["items"][0].clone()
    }

    fn pid(&self) -> String {
        self.status()["pid"].to_string()
    }

    /// Waits for an event in the log of the only forward.
    fn until_logged(&self, event: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.ok("forward logs --raw").contains(&format!("\"event\":\"{event}\"")) {
            assert!(Instant::now() < deadline, "never logged: {event}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if reached(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never {what}: {status:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.run("forward stop --all");
    }
}

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").and_then(|u| u.split('/').next()).unwrap().parse().unwrap()
}

/// A server that answers every connection with this text.
fn page(text: &'static str) -> SocketAddr {
    page_at("127.0.0.1", text)
}

fn page_at(ip: &str, text: &'static str) -> SocketAddr {
    e2e::page::serve(ip, text).unwrap()
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"hello\n")?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    Ok(all)
}

#[test]
fn a_forward_lives_until_it_is_stopped_and_leaves_nothing() {
    let place = Place::new();
    let at = place.start("");
    assert_eq!(ask(at).unwrap(), "first page");
    // Counted when it is accepted, its carrier known when the pod is reached: a status may be written in between.
    let status = place.until("one connection, carried", |s| s["total"] == 1 && !s["carrier"].is_null());
    assert_eq!((&status["phase"], &status["carrier"]), (&Value::from("ready"), &Value::from("direct")));
    assert_eq!(status["target"], "bookinfo/productpage");
    let mode = |suffix: &str| std::fs::metadata(place.file(suffix)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("-firs.json"), mode(".log"), mode(".lock")), (0o600, 0o600, 0o600));
    let log = place.ok("forward logs --raw");
    assert!(log.lines().count() >= 2 && log.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()), "{log}");
    place.ok("forward stop productpage");
    assert!(TcpStream::connect(at).is_err());
    assert_eq!(place.files(), Vec::<PathBuf>::new());
    let none = place.run("forward stop productpage");
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}

#[test]
fn new_connections_follow_the_endpoints() {
    let place = Place::new();
    let at = place.start("");
    assert_eq!(ask(at).unwrap(), "first page");
    place.api.set_pods(&[]);
    place.until("parking", |s| s["phase"] == "parking");
    let waiting = std::thread::spawn(move || ask(at));
    place.until("one parked", |s| s["parked"] == 1);
    place.api.set_pods(&[page("second page")]);
    assert_eq!(waiting.join().unwrap().unwrap(), "second page");
    assert_eq!(place.status()["failed"], 0);
}

#[test]
fn the_same_order_twice_is_one_forward_and_a_restart_is_another_process() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!("forward start svc/productpage {port}:http --mode direct --address 127.0.0.1");
    place.ok(&line);
    let pid = place.pid();
    place.ok(&line);
    assert_eq!(place.pid(), pid);
    place.ok("forward restart");
    assert_ne!(place.pid(), pid);
    assert_eq!(ask(SocketAddr::from(([127, 0, 0, 1], port))).unwrap(), "first page");
}

#[test]
fn it_ends_with_its_service_and_says_so() {
    let place = Place::new();
    let at = place.start("");
    place.api.delete_service();
    let status = place.until("over", |s| s["phase"] == "over");
    assert_eq!(status["over"]["over"], "deleted");
    assert!(TcpStream::connect(at).is_err());
    let told = place.run("forward status");
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stdout).contains("was deleted"), "{told:?}");
}

#[test]
fn it_ends_with_its_cluster_and_says_so() {
    let place = Place::new();
    let at = place.start("");
    place.api.become_another_cluster();
    let status = place.until("over", |s| s["phase"] == "over");
    assert_eq!(status["over"]["over"], "clusterGone");
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn a_forward_of_a_rebuilt_cluster_makes_room_for_the_new_one() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!("forward start svc/productpage {port}:http --mode direct --address 127.0.0.1");
    place.ok(&line);
    place.api.become_another_cluster();
    place.ok(&line);
    let output = place.run("forward status -o json");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut phases: Vec<&str> = list["items"].as_array().unwrap().iter().filter_map(|i| i["phase"].as_str()).collect();
    phases.sort_unstable();
    assert_eq!(phases, ["over", "ready"], "{list:#}");
}

#[test]
fn a_killed_process_is_called_dead() {
    let place = Place::new();
    place.start("");
    let killed = Command::new("kill").args(["-9", &place.pid()]).status().unwrap();
    assert!(killed.success());
    place.until("died", |s| s["phase"] == "died");
}

#[test]
fn a_token_is_in_no_file_and_no_process_list_and_a_restart_asks_for_it() {
    let place = Place::new();
    place.start("--token s3cr3t-t0ken");
    // The control socket holds nothing.
    for file in place.files().into_iter().filter(|file| file.is_file()) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains("s3cr3t"), "{}", file.display());
    }
    #[cfg(target_os = "linux")]
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{}/{file}", place.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("s3cr3t"), "{file}");
    }
    let refused = place.run("forward restart");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert_eq!(place.status()["phase"], "ready");
    place.ok("forward restart --token s3cr3t-t0ken");
}

#[test]
fn a_port_in_use_is_named_and_nothing_stays() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = place.run(&format!("forward start svc/productpage {port}:http --address 127.0.0.1"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&port.to_string()), "{said}");
    #[cfg(target_os = "linux")]
    assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
    assert_eq!(place.status(), Value::Null);
}

#[test]
fn bad_orders_are_refused_with_what_would_be_right() {
    let place = Place::new();
    for (line, code, word) in [
        ("forward start svc/productpage :https", 2, "9080 (http)"),
        ("forward start svc/productpagee :http", 2, "productpage"),
        ("forward start svc/productpage 70000:http", 2, "30080:http"),
        ("forward start svc/productpage :http --address nowhere", 2, "nowhere"),
        ("forward start svc/productpage :http --mode kernel --address 127.0.0.1", 2, "auto"),
        ("forward start pod/nope :80", 2, "pod/nope"),
        ("forward logs nope", 2, "nope"),
    ] {
        let refused = place.run(line);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
        assert_eq!(refused.stdout, b"", "{line}");
    }
    assert_eq!(place.status(), Value::Null);
}

#[test]
fn in_the_foreground_it_serves_until_interrupted() {
    let place = Place::new();
    let mut child = place
        .command("forward svc/productpage :http --mode direct --address 127.0.0.1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let at = address(url.trim());
    assert_eq!(ask(at).unwrap(), "first page");
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(child.wait().unwrap().success());
    assert!(TcpStream::connect(at).is_err());
}
