//! What the supervisor is asked to run.

use std::sync::Arc;
use std::time::Duration;

use crate::datadir::DataDir;
use crate::error::AppError;
use crate::etcd::pinned::PinnedExecutable;
use crate::host::User;

#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PinnedExecutable,
    /// The user that runs it, if not the launcher's.
    pub user: Option<User>,
    pub args: Vec<String>,
    pub data: DataDir,
    pub grace: Duration,
    /// Checked before a restart after etcd was healthy; `None` for temporary data.
    pub restart_check: Option<RestartCheck>,
}

/// Whether etcd may be restarted on its data: an etcd whose data is gone would silently begin an empty cluster.
#[derive(Clone)]
pub struct RestartCheck(pub Arc<dyn Fn() -> Result<(), AppError> + Send + Sync>);

impl std::fmt::Debug for RestartCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RestartCheck")
    }
}
