//! What a fault does again and again for as long as it is injected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// At most one thread, shared by a fault's two halves: injecting starts it, healing ends it.
#[derive(Clone, Default)]
pub struct Background(Arc<Mutex<Option<Running>>>);

struct Running {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Goes round and round from now on; each round takes its time.
    pub fn start(&self, mut round: impl FnMut() + Send + 'static) {
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                round();
            }
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { over, thread: Some(thread) });
    }

    /// Waits until the round that goes on is over.
    pub fn end(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn rounds_are_made_until_the_end() {
        let (told, rounds) = mpsc::sync_channel(0);
        let background = Background::default();
        background.start(move || told.send(()).unwrap_or_default());
        for _ in 0..3 {
            assert!(rounds.recv_timeout(Duration::from_secs(10)).is_ok());
        }
        drop(rounds);
        background.clone().end();
        background.end();
    }
}
