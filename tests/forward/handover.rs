//! A forward that changes its process or its orders while browsers use it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use e2e::apiserver::Api;
use serde_json::{Value, json};

use super::{LIMIT, Place, ask, front, net, page};

/// Asks without a pause until it is told to stop; every answer must be the page.
struct Browser {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Browser {
    fn open(at: SocketAddr) -> Self {
        Self::expecting(at, "first page")
    }

    fn expecting(at: SocketAddr, page: &'static str) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let thread = std::thread::spawn({
            let (stop, asked) = (stop.clone(), asked.clone());
            move || {
                let mut failures = Vec::new();
                while !stop.load(Relaxed) {
                    match ask(at) {
                        Ok(text) if text == page => {}
                        other => failures.push(format!("{other:?}")),
                    }
                    asked.fetch_add(1, Relaxed);
                }
                failures
            }
        });
        let browser = Self { stop, asked, thread };
        browser.sees(5);
        browser
    }

    /// Waits for so many more answers.
    fn sees(&self, more: usize) {
        let wanted = self.asked.load(Relaxed) + more;
        let deadline = Instant::now() + LIMIT;
        while self.asked.load(Relaxed) < wanted {
            assert!(Instant::now() < deadline, "no answers");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn close(self) {
        self.sees(5);
        self.stop.store(true, Relaxed);
        assert_eq!(self.thread.join().unwrap(), Vec::<String>::new());
    }
}

/// A pod that answers each line with the same line, and keeps the connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..count]);
                }
            });
        }
    });
    address
}

fn exchange(stream: &mut TcpStream, text: &str) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text.as_bytes());
}

fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

fn runs(pid: &str) -> bool {
    // A zombie that its parent has not yet asked for is no process any more.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

fn until_gone(pid: &str) {
    let deadline = Instant::now() + LIMIT;
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_restart_refuses_nobody() {
    let place = Place::new();
    let at = place.start("");
    let browser = Browser::open(at);
    for _ in 0..3 {
        let former = place.pid();
        place.ok("forward restart");
        assert_ne!(place.pid(), former);
        browser.sees(5);
        until_gone(&former);
    }
    browser.close();
    assert_eq!(place.status()["phase"], "ready");
}

#[test]
fn the_rules_act_all_through_a_restart() {
    if !net::inside("handover::the_rules_act_all_through_a_restart") {
        return;
    }
    // The NodePort's own rule leads nowhere: every answer came by ours.
    let (place, _) = front::node("always");
    let at = format!("{}:{}", front::NODE, front::PORT).parse().unwrap();
    let browser = Browser::expecting(at, front::PAGE);
    for _ in 0..2 {
        let former = place.pid();
        place.ok("forward restart");
        browser.sees(5);
        until_gone(&former);
        signal(&place.pid(), "-HUP");
        place.until_logged("reloaded");
        browser.sees(50);
    }
    browser.close();
    place.ok("forward stop");
    assert!(!net::ruleset().contains("bookaccess"), "{}", net::ruleset());
}

#[test]
fn an_open_connection_outlives_the_restart_and_ends_with_the_forward() {
    let place = Place::of(Api::start(echo()));
    let at = place.start("");
    let mut stream = TcpStream::connect(at).unwrap();
    exchange(&mut stream, "before");
    let former = place.pid();
    place.ok("forward restart");
    exchange(&mut stream, "after");
    place.until("its connection counted", |s| s["live"] == 1);
    assert!(runs(&former), "the former process left its connection");
    let mut new = TcpStream::connect(at).unwrap();
    exchange(&mut new, "new");
    place.until("both counted", |s| s["live"] == 2);
    place.ok("forward stop");
    until_gone(&former);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(at).is_err());
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn a_connection_that_waits_for_a_pod_is_served_after_the_restart() {
    let place = Place::new();
    let at = place.start("");
    place.api.set_pods(&[]);
    place.until("parking", |s| s["phase"] == "parking");
    let waiting = std::thread::spawn(move || ask(at));
    place.until("one parked", |s| s["parked"] == 1);
    let former = place.pid();
    place.ok("forward restart");
    place.api.set_pods(&[page("first page")]);
    assert_eq!(waiting.join().unwrap().unwrap(), "first page");
    until_gone(&former);
}

#[test]
fn a_successor_that_fails_or_dies_leaves_the_former_one_serving() {
    let place = Place::new();
    let at = place.start("");
    let browser = Browser::open(at);
    let (pid, record) = (place.pid(), place.file("-firs.json"));
    // One that dies with the sockets in its hands.
    let mut wire = UnixStream::connect(place.file(".sock")).unwrap();
    wire.write_all(b"{\"ask\":\"handOver\"}\n").unwrap();
    let mut byte = [0];
    wire.read_exact(&mut byte).unwrap();
    drop(wire);
    browser.sees(5);
    // One that cannot begin: its orders name a port that the Service does not have.
    let good = std::fs::read(&record).unwrap();
    let mut bad: Value = serde_json::from_slice(&good).unwrap();
    bad["spec"]["pairs"][0]["port"] = json!("nowhere");
    std::fs::write(&record, bad.to_string()).unwrap();
    let refused = place.run("forward restart");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nowhere"), "{refused:?}");
    // The same orders by SIGHUP.
    signal(&pid, "-HUP");
    place.until_logged("not-reloaded");
    std::fs::write(&record, good).unwrap();
    browser.close();
    assert_eq!((place.pid(), &place.status()["phase"]), (pid, &json!("ready")));
}

#[test]
fn a_hangup_has_the_orders_read_again_and_drops_nobody() {
    let place = Place::of(Api::start(echo()));
    let at = place.start("");
    let mut stream = TcpStream::connect(at).unwrap();
    exchange(&mut stream, "before");
    let (pid, record) = (place.pid(), place.file("-firs.json"));
    let mut orders: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    orders["spec"]["mode"] = json!("auto");
    std::fs::write(&record, orders.to_string()).unwrap();
    signal(&pid, "-HUP");
    place.until("the new mode", |s| s["mode"] == "auto");
    exchange(&mut stream, "after");
    assert_eq!(place.pid(), pid);
    let mut new = TcpStream::connect(at).unwrap();
    exchange(&mut new, "new");
    place.until("both counted", |s| s["live"] == 2);
    drop(stream);
    place.until("one counted", |s| s["live"] == 1);
}

#[test]
fn another_order_for_the_same_forward_drops_nobody() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = format!("forward start svc/productpage {port}:http --address 127.0.0.1 --mode");
    place.ok(&format!("{line} direct"));
    let browser = Browser::open(SocketAddr::from(([127, 0, 0, 1], port)));
    place.ok(&format!("{line} auto"));
    browser.close();
    assert_eq!(place.status()["mode"], "auto");
}

#[test]
fn the_control_socket_answers_its_owner_and_survives_nonsense() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let at = place.start("");
    let path = place.file(".sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let asked = |line: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answers = BufReader::new(stream).lines().map_while(Result::ok);
        answers.map(|l| serde_json::from_str::<Value>(&l).unwrap()).collect::<Vec<_>>()
    };
    let status = asked("{\"ask\":\"status\"}\n");
    assert_eq!((&status[0]["answer"], &status[0]["status"]["phase"]), (&json!("status"), &json!("ready")));
    for nonsense in ["{\"ask\":\"dance\"}\n", "\n", "{\"ask\":\"serving\"}\n", "no end"] {
        assert_eq!(asked(nonsense), Vec::<Value>::new(), "{nonsense}");
    }
    let log = asked("{\"ask\":\"logs\",\"tail\":1}\n");
    assert_eq!((log.len(), &log[0]["answer"], &log[1]["answer"]), (2, &json!("line"), &json!("done")));
    assert_eq!(asked("{\"ask\":\"reload\"}\n")[0]["answer"], "done");
    assert_eq!(ask(at).unwrap(), "first page");
    assert_eq!(asked("{\"ask\":\"stop\"}\n")[0]["answer"], "done");
    place.until("stopped", |s| s["phase"] == "stopped");
    assert!(TcpStream::connect(at).is_err());
}
