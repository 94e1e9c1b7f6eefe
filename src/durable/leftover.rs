//! Whether a temporary file is a leftover that can be removed.
//!
//! A file that is being written is locked (flock(2)), which is visible to all containers of one kernel. Machines that
//! share a directory may not see each other's locks, so files of another machine are kept for a day.

use std::time::Duration;

/// A file that another machine has not changed for this long is a leftover.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The machine, and its boot, where a file was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterIdentity {
    pub machine: String,
    /// Derived from the boot id, which all containers of a machine share.
    pub boot: String,
}

/// The state of a file's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    Held,
    Free,
    /// The file system does not support locks.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// From its name; older versions did not record it.
    pub origin: Option<WriterIdentity>,
    pub lock: LockState,
    pub age: Duration,
    /// It is on a file system that other machines may write to.
    pub is_shared: bool,
}

/// Decides whether `us` may remove it.
#[must_use]
pub fn is_abandoned(found: &Leftover, us: &WriterIdentity) -> bool {
    match (found.lock, &found.origin) {
        (LockState::Held, _) => false,
        // On this kernel the lock is reliable.
        (LockState::Free, Some(origin)) if origin.boot == us.boot => true,
        // From an earlier boot of this machine: no process is left.
        (_, Some(origin)) if origin.machine == us.machine && origin.boot != us.boot => true,
        (LockState::Free, None) if !found.is_shared => true,
        _ => found.age >= ABANDONED_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_now_stays_and_what_is_over_goes() {
        use LockState::{Free, Held, Unknown};
        let origin = |machine: &str, boot: &str| Some(WriterIdentity { machine: machine.into(), boot: boot.into() });
        let us = origin("m", "b").unwrap();
        let (young, old) = (Duration::from_secs(60), ABANDONED_AFTER);
        for (from, lock, age, is_shared, expected) in [
            // A writer at work, on any machine.
            (origin("m", "b"), Held, old, false, false),
            (origin("n", "c"), Held, old, true, false),
            (None, Held, old, false, false),
            // A process or container of this kernel that ended, whatever its pid was.
            (origin("m", "b"), Free, young, false, true),
            (origin("container", "b"), Free, young, true, true),
            // The same, without support for locks.
            (origin("m", "b"), Unknown, young, true, false),
            (origin("m", "b"), Unknown, old, true, true),
            // Before this machine was booted.
            (origin("m", "a"), Unknown, young, true, true),
            (origin("m", "a"), Free, young, false, true),
            // Another machine.
            (origin("n", "c"), Free, young, true, false),
            (origin("n", "c"), Free, old, true, true),
            (origin("n", "c"), Unknown, old, true, true),
            // An older quorate.
            (None, Free, young, false, true),
            (None, Free, young, true, false),
            (None, Unknown, young, false, false),
            (None, Free, old, true, true),
        ] {
            let found = Leftover { origin: from, lock, age, is_shared };
            assert_eq!(is_abandoned(&found, &us), expected, "{found:?}");
        }
    }
}
