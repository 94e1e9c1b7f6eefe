//! The exit codes.

/// The exit codes of every `quorate` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, also when asked to stop.
    Done = 0,
    /// Failed; the message says what and what to do.
    Failed = 1,
    /// Usage or configuration. systemd does not restart after it.
    Usage = 2,
    /// The data directory is in use.
    InUse = 3,
    /// Refused to protect data. systemd does not restart after it.
    Refused = 4,
    /// Something that was named does not exist.
    NotFound = 5,
    /// The server is not running or not reachable.
    NotRunning = 6,
    /// Busy, try again.
    Busy = 75,
}
