//! How a person or a supervisor asks the program to stop.

/// Waits for Ctrl-C, or for SIGTERM where there is one. False where neither can be listened for.
pub async fn asked_to_stop() -> bool {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                asked = tokio::signal::ctrl_c() => asked.is_ok(),
                _ = terminate.recv() => true,
            };
        }
    }
    tokio::signal::ctrl_c().await.is_ok()
}
