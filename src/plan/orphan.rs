//! Is the process with the recorded pid the recorded child?

use crate::host::ProcessIdentity;

/// The identity of the process with the recorded pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanVerdict {
    Gone,
    Ours,
    /// Another program that reuses the pid.
    Foreign,
}

/// Compares the record with the process that has this pid now.
#[must_use]
pub fn identify(recorded: &ProcessIdentity, present: Option<&ProcessIdentity>) -> OrphanVerdict {
    match present {
        None => OrphanVerdict::Gone,
        Some(present) if present == recorded => OrphanVerdict::Ours,
        Some(_) => OrphanVerdict::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_pid_start_executable_and_boot_are_ours() {
        let recorded =
            ProcessIdentity { pid: 7, start_ticks: 100, executable: "/usr/bin/etcd".into(), boot_id: "b".into() };
        assert_eq!(identify(&recorded, None), OrphanVerdict::Gone);
        assert_eq!(identify(&recorded, Some(&recorded.clone())), OrphanVerdict::Ours);
        for other in [
            ProcessIdentity { start_ticks: 101, ..recorded.clone() },
            ProcessIdentity { executable: "/bin/sleep".into(), ..recorded.clone() },
            ProcessIdentity { boot_id: "c".into(), ..recorded.clone() },
        ] {
            assert_eq!(identify(&recorded, Some(&other)), OrphanVerdict::Foreign);
        }
    }
}
