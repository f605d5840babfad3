//! Exit codes: a documented contract (README's table is made from it).

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Reachable, or done.
    Ok = 0,
    /// A problem is left.
    Problem = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Rights are missing (403, 401).
    Forbidden = 3,
    /// The API server cannot be reached.
    Unreachable = 4,
    /// `fix`: confirmation is needed or was declined.
    Unconfirmed = 5,
    /// `fix`: reachable only from this machine.
    LocalOnly = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
