//! Whether a temporary file belongs to a write that is over, so that it is removed.
//!
//! A file that is being written is locked (flock(2)), which tells on one kernel, whatever container the writer is in. Across machines that
//! share a directory it may not, so what another machine wrote is left alone for a day.

use std::time::Duration;

/// What another machine has not changed for so long is nobody's any more.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// On which machine, and in which of its boots, something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub machine: String,
    /// Stands for the id of the boot: one for all containers of a machine.
    pub boot: String,
}

/// Whether somebody has the file locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    Held,
    Free,
    /// The file system does not tell.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// As its name tells; an older quorate did not write it.
    pub origin: Option<Origin>,
    pub lock: LockState,
    pub age: Duration,
    /// It lies on a file system that other machines may write to.
    pub is_shared: bool,
}

/// Decides whether it is removed here, on `us`.
#[must_use]
pub fn is_abandoned(found: &Leftover, us: &Origin) -> bool {
    match (found.lock, &found.origin) {
        (LockState::Held, _) => false,
        // On this kernel the lock tells.
        (LockState::Free, Some(origin)) if origin.boot == us.boot => true,
        // Of this machine, before it was booted: no process of then is left.
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
        let origin = |machine: &str, boot: &str| Some(Origin { machine: machine.into(), boot: boot.into() });
        let us = origin("m", "b").unwrap();
        let (young, old) = (Duration::from_secs(60), ABANDONED_AFTER);
        for (from, lock, age, is_shared, expected) in [
            // A writer at work, wherever it is.
            (origin("m", "b"), Held, old, false, false),
            (origin("n", "c"), Held, old, true, false),
            (None, Held, old, false, false),
            // A process or container of this kernel that ended, whatever its pid was.
            (origin("m", "b"), Free, young, false, true),
            (origin("container", "b"), Free, young, true, true),
            // The same, where the file system does not tell.
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
