//! Removes what writes that were interrupted left behind.

use std::ffi::OsString;
use std::path::Path;

use super::TEMPORARY;
use super::held::HeldDir;

/// Removes what an interrupted write left in the directory at `dir`, and returns the names.
#[must_use]
pub fn sweep(dir: &Path) -> Vec<OsString> {
    HeldDir::open(dir).map(|dir| dir.sweep()).unwrap_or_default()
}

impl HeldDir {
    /// Removes what an interrupted write left in it, and returns the names.
    #[must_use]
    pub fn sweep(&self) -> Vec<OsString> {
        let mut names = self.names().unwrap_or_default();
        names.retain(|name| is_abandoned(&name.to_string_lossy()) && self.remove_file(name).is_ok());
        names
    }
}

/// True for a temporary name whose process is gone, or had the pid that we have now.
fn is_abandoned(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(TEMPORARY) else { return false };
    let pid = rest.rsplit('-').next().and_then(|pid| pid.parse::<u32>().ok());
    pid.is_none_or(|pid| pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests put files there by hand")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_sweep_takes_only_our_temporaries() {
        let dir = tempfile::tempdir().unwrap();
        // Pid 1 always runs; 2^22 is beyond every pid.
        for name in [".tmp-quorate-x-4194304", ".tmp-quorate-x-1", "x"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(sweep(dir.path()), [OsString::from(".tmp-quorate-x-4194304")]);
        assert!(dir.path().join("x").exists() && dir.path().join(".tmp-quorate-x-1").exists());
    }
}
