//! The program itself on loopback: the page with and without its parts, the test routes, its end.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Standin {
    child: Child,
    address: SocketAddr,
}

impl Standin {
    fn start(role: &str, env: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
        command.args([role, "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
        command.env("HOSTNAME", format!("{role}-pod")).envs(env.iter().cloned());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        answer(&mut stream)
    }

    fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}");
        String::from_utf8(body).unwrap()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer of a connection that may stay open.
fn answer(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "ended within the head");
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest[..3].parse().unwrap();
        } else if let Some(count) = line.strip_prefix("Content-Length: ") {
            length = count.trim().parse().unwrap();
        } else if line == "\r\n" && status != 100 {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status, body)
}

fn at(name: &str, address: SocketAddr) -> [(String, String); 2] {
    [
        (format!("{name}_HOSTNAME"), address.ip().to_string()),
        (format!("{name}_SERVICE_PORT"), address.port().to_string()),
    ]
}

#[test]
fn the_page_shows_the_parts_that_answer() {
    let (details, ratings) = (Standin::start("details", &[]), Standin::start("ratings", &[]));
    let ratings_at = at("RATINGS", ratings.address);
    let env: Vec<_> = ratings_at.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let reviews = Standin::start("reviews-v3", &env);
    let parts_at = [at("DETAILS", details.address), at("REVIEWS", reviews.address)].concat();
    let env: Vec<_> = parts_at.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let page = Standin::start("productpage", &env);

    let text = page.text("/productpage");
    for part in [
        "<title>Simple Bookstore App</title>",
        "author: William Shakespeare",
        "(5 red stars)",
        "Reviews served by: reviews-v3-pod",
        "Served by pod productpage-pod",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(page.text("/health"), "Product page is healthy");

    drop(ratings);
    assert!(page.text("/productpage").contains("Ratings service is currently unavailable"));
    drop(details);
    assert!(page.text("/productpage").contains("product details are currently unavailable"));
}

#[test]
fn a_part_that_hangs_costs_the_page_one_second() {
    // One part refuses, the other accepts by its queue and never answers.
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let parts_at = [at("DETAILS", silent.local_addr().unwrap()), at("REVIEWS", refusing)].concat();
    let env: Vec<_> = parts_at.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let page = Standin::start("productpage", &env);
    let start = Instant::now();
    let text = page.text("/productpage");
    let took = start.elapsed();
    assert!(text.contains("product details are currently unavailable"), "{text}");
    assert!(text.contains("product reviews are currently unavailable"), "{text}");
    assert!(took > Duration::from_millis(900) && took < Duration::from_millis(2500), "{took:?}");
}

#[test]
fn grafana_says_it_is_healthy() {
    let grafana = Standin::start("grafana", &[]);
    assert!(grafana.text("/api/health").contains("\"database\":\"ok\""));
    assert!(grafana.text("/login").contains("<title>Grafana</title>"));
    assert_eq!(grafana.get("/productpage").0, 404);
}

#[test]
fn the_test_routes_do_what_they_say() {
    let page = Standin::start("productpage", &[]);
    let (_, body) = page.get("/test/body?mib=2");
    assert_eq!(body.len(), 2 * 1024 * 1024);
    assert!(body.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251));

    let start = Instant::now();
    page.text("/test/slow?ms=300");
    assert!(start.elapsed() >= Duration::from_millis(300));

    for (path, promised) in [("/test/reset", 0), ("/test/reset?after=5000", 5000)] {
        let mut stream = page.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut got = Vec::new();
        let error = stream.read_to_end(&mut got).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{path}");
        assert!(promised == 0 || got.len() <= promised + 200, "{}", got.len());
    }
}

#[test]
fn uploads_are_counted_and_the_connection_stays() {
    let page = Standin::start("productpage", &[]);
    let mut stream = page.connect();
    for round in 0..3 {
        let count = 300_000 + round;
        write!(
            stream,
            "POST /test/sink HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {count}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(&vec![7; count]).unwrap();
        let (status, body) = answer(&mut stream);
        assert_eq!((status, body), (200, format!("{{\"bytes\":{count}}}\n").into_bytes()));
    }
    assert_eq!(page.get("/test/sink").0, 405);
}

#[test]
fn sigterm_lets_a_request_finish_and_ends_with_success() {
    let mut page = Standin::start("productpage", &[("DRAIN_MS", "500".to_owned())]);
    let mut idle = page.connect();
    let mut busy = page.connect();
    write!(busy, "GET /test/slow?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    write!(idle, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(answer(&mut idle).0, 200);
    let pid = page.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(answer(&mut busy).0, 200);
    assert!(page.child.wait().unwrap().success());
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "an idle connection ends cleanly");
    assert_eq!(TcpStream::connect(page.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn bad_arguments_are_refused() {
    for args in [&[][..], &["bookshop"], &["ratings", "--listen", "nowhere"], &["--port"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_standin")).args(args).env_remove("ROLE").output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("standin: "), "{args:?}");
    }
}

#[test]
fn both_ends_of_a_measurement_agree() {
    let server = Standin::start("bench", &[]);
    let (_, body) = server.get("/bytes?n=600000");
    assert_eq!(body.len(), 600_000);
    assert!(body.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251));
    assert!(server.text("/productpage").contains("<title>Simple Bookstore App</title>"));

    let load = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
        let (kind, flags) = args.split_once(' ').unwrap();
        command.args(["load", kind, &server.address.to_string()]).args(flags.split(' '));
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen["failed"], 0, "{args}: {seen}");
        move |key: &str| seen[key].as_u64().unwrap()
    };
    for transfer in ["download", "upload"] {
        let seen = load(&format!("{transfer} --connections 3 --threads 2 --bytes 5000000"));
        assert_eq!((seen("answers"), seen("bytes")), (3, 15_000_000), "{transfer}");
    }
    assert!(load("requests --connections 4 --seconds 0.2")("answers") > 4);
    assert!(load("connects --connections 4 --seconds 0.2")("answers") > 4);
    assert_eq!(load("connects --connections 4 --seconds 20 --count 50")("answers"), 50);
    assert_eq!(load("paced --connections 4 --seconds 0.2 --rate 500")("answers"), 100);
    assert_eq!(load("idle --connections 100")("held"), 100);
}

#[test]
fn a_load_that_is_not_answered_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let load = |kind: &str, address: SocketAddr| {
        let args = ["load", kind, &address.to_string(), "--seconds", "0.1"];
        Command::new(env!("CARGO_BIN_EXE_standin")).args(args).stdin(Stdio::null()).output().unwrap()
    };
    let refused = load("requests", closed);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("refused"), "{refused:?}");
    let seen: serde_json::Value = serde_json::from_slice(&load("connects", closed).stdout).unwrap();
    assert!(seen["failed"].as_u64().unwrap() > 0 && seen["answers"] == 0, "{seen}");

    // Promises more than it sends.
    let liar = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = liar.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in liar.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
        }
    });
    let cut = load("requests", address);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("ended after 5 of 100 bytes"), "{cut:?}");
}
