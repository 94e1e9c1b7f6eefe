//! The etcd that a configuration means: found, pinned, and asked for its version and arguments.

use std::sync::Arc;
use std::time::Duration;

use super::binary::{self, BinarySource, Program, Unpacking};
use super::pinned::PinnedExecutable;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::error::AppError;
use crate::faults;
use crate::version::Version;

/// How long etcd may take to end when asked to. The unit's `TimeoutStopSec` must be longer.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// [`STOP_TIMEOUT`], which tests can shorten.
#[must_use]
pub fn stop_timeout() -> Duration {
    faults::tunable("QUORATE_TEST_GRACE_MS", STOP_TIMEOUT)
}

/// An etcd that was found and checked.
#[derive(Clone, Debug)]
pub struct InstalledEtcd {
    pub version: Version,
    pub checked: PinnedExecutable,
    /// How it was found; keeps it executable if it is in memory.
    pub program: Arc<Program>,
}

/// Finds the etcd of this configuration and checks it. One inside quorate stays in memory.
///
/// # Errors
/// If there is none, it cannot be run, or has a version or refuses arguments so that quorate cannot run it.
pub async fn find(config: &Config, data: &DataDir) -> Result<InstalledEtcd, AppError> {
    let program = binary::find_etcd(config.etcd.binary.as_deref(), data, Unpacking::No)?;
    let checked = program.pin()?;
    // A foreign program is run as etcd's user from the first moment on.
    let runner = config.etcd.user.as_ref().filter(|_| program.source != BinarySource::Embedded);
    let version = binary::version_of(&program.path, runner).await?;
    binary::check_arguments(&program.path, version, &config.etcd.args, runner).await?;
    Ok(InstalledEtcd { version, checked, program: Arc::new(program) })
}

/// Unpacks `found` into the data directory if it is the one inside quorate; otherwise it stays as it is.
///
/// # Errors
/// If it cannot be unpacked, or the user that etcd runs as cannot run it there.
pub async fn unpack(config: &Config, data: &DataDir, found: InstalledEtcd) -> Result<InstalledEtcd, AppError> {
    if found.program.source != BinarySource::Embedded {
        return Ok(found);
    }
    // The same bytes, which unpacking checks.
    let program = binary::find_etcd(config.etcd.binary.as_deref(), data, Unpacking::Yes)?;
    let unpacked = InstalledEtcd { version: found.version, checked: program.pin()?, program: Arc::new(program) };
    if let Some(user) = &config.etcd.user {
        binary::version_of(unpacked.checked.path(), Some(user)).await?;
    }
    Ok(unpacked)
}
