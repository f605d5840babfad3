//! Where this program keeps its state: forwards, journals, logs.

use std::path::PathBuf;

/// Root's folder, read by every user's `status`.
pub const ROOT_STATE: &str = "/var/lib/kubectl-bookaccess";

/// The folder for the user who runs this: `/var/lib/kubectl-bookaccess` for root on Unix, else
/// `kubectl-bookaccess` below the platform's state folder (`$XDG_STATE_HOME`, default `~/.local/state`).
/// `BOOKACCESS_STATE_DIR` overrides both. None where there is neither a home nor an override.
pub fn own() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    if let Some(dir) = std::env::var_os("BOOKACCESS_STATE_DIR").filter(|d| !d.is_empty()) {
        return Some(PathBuf::from(dir));
    }
    if is_root() {
        return Some(PathBuf::from(ROOT_STATE));
    }
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("kubectl-bookaccess"))
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    #[cfg(unix)]
    {
        rustix::process::geteuid().is_root()
    }
    #[cfg(not(unix))]
    {
        false
    }
}
