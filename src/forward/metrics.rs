//! A forward's numbers for Prometheus, on a loopback address: text format 0.0.4 over HTTP.

use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::carrier::tunnel::Rung;
use super::listener::{Error, Socket, name};
use super::report::{Phase, Report};
use super::run::View;
use super::spec::Mode;
use crate::supervise::state::Position;

/// Stands for a port pair at the socket that serves metrics, so that it passes to a successor with the others.
pub const PAIR: usize = usize::MAX;
/// A scrape takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Scrapes at a time.
const READERS: usize = 16;
/// A request's head is no longer.
const LONGEST_HEAD: usize = 8 * 1024;

/// The socket for an address: one of `given`, or a new one.
///
/// # Errors
/// Of the bind.
pub fn listen(address: Option<SocketAddr>, given: &mut Vec<Socket>) -> Result<Option<Socket>, Error> {
    let (ours, others) = given.drain(..).partition(|s| s.pair == PAIR);
    *given = others;
    let Some(address) = address else { return Ok(None) };
    let ours: Vec<Socket> = ours;
    let is_it = |s: &Socket| s.listener.local_addr().is_ok_and(|at| at == address);
    if let Some(socket) = ours.into_iter().find(is_it) {
        return Ok(Some(socket));
    }
    let listener = TcpListener::bind(address).map_err(|source| name(source, address))?;
    Ok(Some(Socket { pair: PAIR, is_private: false, listener }))
}

/// Answers scrapes until it is dropped.
pub async fn serve(socket: Option<Socket>, view: View) {
    let Some(socket) = socket else { return std::future::pending().await };
    let opened = socket.listener.set_nonblocking(true);
    let listener = match opened.and_then(|()| tokio::net::TcpListener::from_std(socket.listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(event = "no-metrics", error = %error);
            return std::future::pending().await;
        }
    };
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = readers.join_next() => {}
            accepted = listener.accept(), if readers.len() < READERS => match accepted {
                Ok((stream, _)) => {
                    // A reader that leaves or is slow has had its chance.
                    readers.spawn(timeout(PATIENCE, answer(stream, view.clone())));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn answer(mut stream: TcpStream, view: View) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = match (method, path.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", text(&view.report())),
        ("GET" | "HEAD", _) => ("404 Not Found", "the numbers are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

/// The text of one moment.
pub fn text(report: &Report) -> String {
    let mut page = Page::default();
    let numbers = &report.numbers;
    let (target, mode) = (report.target.as_str(), mode(report.mode));
    page.family("info", "gauge", "What this forward is.");
    page.line("info", &[("forward", &report.id), ("target", target), ("mode", mode)], 1);
    page.one("start_time_seconds", "gauge", "When it began, in seconds since 1970.", report.started_at.as_second());
    page.one("ready", "gauge", "Whether a pod is ready.", u64::from(report.phase == Phase::Ready));
    page.one("pods", "gauge", "Pods that take new connections.", report.pods.len());
    page.one("api_lost", "gauge", "Whether the API server is away.", u64::from(report.api_lost.is_some()));
    if let Some(position) = report.position {
        let is_front = u64::from(position == Position::Front);
        page.one("front", "gauge", "Whether rules lead the NodePort here.", is_front);
    }
    page.one("connections", "gauge", "Open connections.", report.live);
    page.one("connections_parked", "gauge", "Open connections that wait for a pod.", report.parked);
    page.one("connections_accepted_total", "counter", "Connections accepted.", report.total);
    page.one("connections_refused_total", "counter", "Connections turned away at a limit.", report.refused);
    page.one("connections_retried_total", "counter", "Dials and requests that were tried again.", report.retried);
    page.one("connections_failed_total", "counter", "Connections ended by RST.", report.failed);
    page.family("connections_carried_total", "counter", "Connections by carrier.");
    page.line("connections_carried_total", &[("carrier", "direct")], report.direct);
    page.line("connections_carried_total", &[("carrier", "tunnel")], report.tunnel);
    page.family("connections_by_pod_total", "counter", "Connections by pod and how they ended there.");
    for pod in &numbers.by_pod {
        let results = [("served", pod.served), ("left", pod.left), ("aborted", pod.aborted), ("retried", pod.retried)];
        for (result, count) in results {
            page.line("connections_by_pod_total", &[("pod", &pod.pod), ("result", result)], count);
        }
    }
    page.family("connections_aborted_total", "counter", "Connections ended by RST, by reason.");
    for (reason, count) in &numbers.aborted {
        page.line("connections_aborted_total", &[("reason", reason)], *count);
    }
    page.family("bytes_total", "counter", "Bytes by direction, as the client sees it.");
    page.line("bytes_total", &[("direction", "sent")], report.bytes_sent);
    page.line("bytes_total", &[("direction", "received")], report.bytes_received);
    page.family("open_seconds", "histogram", "From picking a pod to an open connection to it.");
    let mut below = 0;
    for (index, count) in numbers.opening.counts.iter().enumerate() {
        below += count;
        let bound = numbers.opening.bounds.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
        page.line("open_seconds_bucket", &[("le", &bound)], below);
    }
    page.line("open_seconds_sum", &[], numbers.opening.sum_seconds);
    page.line("open_seconds_count", &[], below);
    page.family("tunnels_total", "counter", "What became of tunnels.");
    for (what, count) in numbers.tunnels.iter().filter(|(what, _)| *what != "leased") {
        page.line("tunnels_total", &[("what", what)], *count);
    }
    let leased = numbers.tunnels.get("leased").copied().unwrap_or_default();
    if let Some(rung) = report.tunnel_protocol {
        page.family("tunnel_protocol", "gauge", "How tunnels are spoken to the API server: 1 at the one in use.");
        for one in Rung::ALL {
            page.line("tunnel_protocol", &[("protocol", one.name())], u64::from(one == rung));
        }
    }
    page.one("tunnels_leased", "gauge", "Connections in tunnels now.", leased);
    page.family("tunnels_refused_total", "counter", "Tunnels that the API server refused, by HTTP status.");
    for (status, count) in &numbers.tunnels_refused {
        page.line("tunnels_refused_total", &[("status", status)], *count);
    }
    page.one("lease_renewals_total", "counter", "Renewals of the leases of rules.", report.kernel.renewals);
    page.0
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto",
        Mode::Kernel => "kernel",
        Mode::Direct => "direct",
        Mode::Tunnel => "tunnel",
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP bookaccess_{name} {help}\n# TYPE bookaccess_{name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "bookaccess_{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.line(name, &[], value);
    }
}
