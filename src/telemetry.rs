//! Logs: English, structured, on stderr; `-v` chooses how much.

use tracing_subscriber::EnvFilter;

/// Sets the subscriber up once. `verbosity` is kubectl's 0–9.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => "off",
        1..=3 => "bookaccess=info",
        4..=5 => "bookaccess=debug",
        6..=7 => "bookaccess=debug,kube=debug",
        _ => "bookaccess=trace,kube=trace,hyper=debug",
    };
    let filter = EnvFilter::try_from_env("BOOKACCESS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
