//! The API server answers, but late: it is stopped most of the time, as one is that waits for its disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::{Cluster, Node, Place};
use crate::faults::Fault;

/// How long it does not run, and how long it runs between two such times.
const STOPPED: Duration = Duration::from_millis(2000);
const RUNNING: Duration = Duration::from_millis(150);

/// Most requests take about two seconds.
pub fn api_server(node: &Node) -> Fault {
    let standing: Arc<Mutex<Option<Pulse>>> = Arc::default();
    let ending = Arc::clone(&standing);
    let place = node.place.clone();
    Fault::new(
        "the API server is slow",
        move |_: &Cluster| {
            let pulse = Pulse::start(place.clone());
            *standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(pulse);
            Ok(())
        },
        move |_: &Cluster| {
            drop(ending.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        },
    )
}

/// A thread that stops and continues the API server until it is dropped; it leaves it running.
struct Pulse {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    fn start(place: Place) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let signal = move |name: &str| {
            // Its failing shows as a row whose requests are fast.
            let _ = place.shell(&format!("kill -{name} $(pgrep -o -x kube-apiserver)"));
        };
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                // The times are the fault itself, not waits for something.
                signal("STOP");
                std::thread::sleep(STOPPED);
                signal("CONT");
                std::thread::sleep(RUNNING);
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
