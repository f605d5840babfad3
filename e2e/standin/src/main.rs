//! The stand-ins for Bookinfo and Grafana: one static program, its role given by argument or ROLE.
//!
//! The originals cannot be had without a registry. What matters of them is kept: the page really
//! calls the other services by their DNS names, so it shows what of a cluster's network works.

mod apps;
mod client;
mod dns;
mod fast;
mod faulty;
mod http;
mod load;
mod trial;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::apps::{App, Role};

/// How long connections are still accepted after SIGTERM: a cluster takes a moment to stop sending
/// them. Milliseconds in DRAIN_MS override it.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a request in progress may take after that.
const FINISH: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log(&format!("standin: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    if std::env::args().nth(1).is_some_and(|word| word == "load") {
        return load::run(std::env::args().skip(2));
    }
    let (role, listen) = arguments(std::env::args().skip(1))?;
    // Registered before the port is open: as pid 1 a signal without a handler is ignored.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|e| format!("signals: {e}"))?;
    std::thread::sleep(milliseconds("START_DELAY_MS").unwrap_or_default());
    let listener = open(listen, role.port())?;
    let address = listener.local_addr().map_err(|e| format!("address: {e}"))?;
    if role == Role::Bench {
        fast::start(&listener).map_err(|e| e.to_string())?;
        log(&format!("{} listens on {address}", role.name()));
        signals.forever().next();
        return Ok(());
    }
    let server = http::Server::start(listener, App::from_env(role)?).map_err(|e| e.to_string())?;
    log(&format!("{} listens on {address}", role.name()));

    signals.forever().next();
    server.drain();
    std::thread::sleep(milliseconds("DRAIN_MS").unwrap_or(DRAIN));
    server.stop_accepting();
    let end = Instant::now() + FINISH;
    while server.busy() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Reads `[ROLE] [--listen ADDRESS]`; ROLE and LISTEN of the environment stand in for what is absent.
fn arguments(args: impl Iterator<Item = String>) -> Result<(Role, Option<SocketAddr>), String> {
    let mut role = std::env::var("ROLE").ok();
    let mut listen = std::env::var("LISTEN").ok();
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--listen" => listen = Some(args.next().ok_or("--listen needs an address")?),
            word if word.starts_with('-') => return Err(format!("unknown flag {word}")),
            word => role = Some(word.to_owned()),
        }
    }
    let role = Role::parse(&role.ok_or("no role: give one as argument or in ROLE")?)?;
    let listen = listen.map(|text| text.parse().map_err(|_| format!("not an address and port: {text}"))).transpose()?;
    Ok((role, listen))
}

/// Listens on every address, IPv6 included where the kernel has it, unless one is given; with V6ONLY in the
/// environment on IPv6 alone.
fn open(listen: Option<SocketAddr>, port: u16) -> Result<TcpListener, String> {
    if std::env::var_os("V6ONLY").is_some() {
        return only_v6(port).map_err(|e| format!("cannot listen on IPv6 alone: {e}"));
    }
    let choices = match listen {
        Some(address) => vec![address],
        None => vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()],
    };
    TcpListener::bind(&choices[..]).map_err(|e| format!("cannot listen on {choices:?}: {e}"))
}

fn only_v6(port: u16) -> rustix::io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let socket = socket(AddressFamily::INET6, SocketType::STREAM, None)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    listen(&socket, 128)?;
    Ok(socket.into())
}

/// A time given in the environment: DRAIN_MS, and START_DELAY_MS for a start as slow as a real one.
fn milliseconds(variable: &str) -> Option<Duration> {
    let text = std::env::var(variable).ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// The container's log is its standard error.
#[expect(clippy::print_stderr, reason = "the one place of this program that prints")]
fn log(line: &str) {
    eprintln!("{line}");
}
