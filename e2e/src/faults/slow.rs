//! An API server that answers late: a line to it on which every answer is two seconds under way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use crate::cluster::{Cluster, Place};
use crate::faults::background::Background;
use crate::faults::{Fault, kubeconfig};

/// How long an answer is under way.
const LATE: Duration = Duration::from_secs(2);
/// Where the line begins, on the client's loopback.
const LINE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 16_443);
/// The kubeconfig that leads to it, on the client.
pub const KUBECONFIG: &str = "/run/bookaccess-e2e-slow.kubeconfig";

/// Every answer of the API server takes two seconds more, for who uses [`KUBECONFIG`].
pub fn api_server() -> Fault {
    let line = Background::default();
    let ending = line.clone();
    Fault::new(
        "the API server is slow",
        move |cluster: &Cluster| {
            let mut server = None;
            kubeconfig::write(cluster, KUBECONFIG, |config| {
                let place = &mut config["clusters"][0]["cluster"]["server"];
                server = Some(place.as_str().context("no server")?.trim_start_matches("https://").parse()?);
                *place = json!(format!("https://{LINE}"));
                Ok(())
            })?;
            let server: SocketAddr = server.context("the kubeconfig was not read")?;
            let listener = within(&cluster.client, || TcpListener::bind(LINE))?;
            listener.set_nonblocking(true)?;
            let place = cluster.client.clone();
            line.start(move || match listener.accept() {
                // A line that fails shows as a row whose command fails.
                Ok((near, _)) => drop(within(&place, || TcpStream::connect(server)).and_then(|far| lay(near, far))),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            });
            Ok(())
        },
        move |cluster: &Cluster| {
            ending.end();
            kubeconfig::remove(cluster, KUBECONFIG)
        },
    )
}

/// Joins two connections: there at once, back late. Only what answers the second word or a later one is late: the first
/// is TLS' own, to which a slow API server answers at once.
fn lay(near: TcpStream, far: TcpStream) -> Result<()> {
    near.set_nonblocking(false)?;
    let (mut asks, mut asked) = (near.try_clone()?, far.try_clone()?);
    let words = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&words);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = asks.read(&mut bytes) {
            counted.fetch_add(1, Ordering::Relaxed);
            if asked.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        asked.shutdown(Shutdown::Write)
    });
    let (sent, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (mut answers, mut answered) = (far, near);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = answers.read(&mut bytes) {
            let late = if words.load(Ordering::Relaxed) > 1 { LATE } else { Duration::ZERO };
            if sent.send((Instant::now() + late, bytes[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in arriving {
            // The time is the fault itself, not a wait for something.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if answered.write_all(&bytes).is_err() {
                break;
            }
        }
        answered.shutdown(Shutdown::Both)
    });
    Ok(())
}

/// Runs `work` on a thread of its own in the place's network namespace: a socket belongs to the one it was made in.
fn within<T: Send>(place: &Place, work: impl FnOnce() -> std::io::Result<T> + Send) -> Result<T> {
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", place.process()?))?;
    let inside = || -> Result<T> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work()?)
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| anyhow::bail!("the thread panicked"))
}
