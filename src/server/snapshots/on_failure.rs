//! `etcd-snapshot-on-failure`: the operator's own command, run when no scheduled snapshot could be taken.

use std::process::Stdio;
use std::time::Duration;

use crate::error::ErrorReport;
use crate::etcd::process::{kill_group, operator_environment, spawn_registered};

/// How long it may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs it in the shell, with what went wrong in its environment.
pub(crate) async fn run(command: String, told: ErrorReport, node: String) {
    let mut shell = std::process::Command::new("/bin/sh");
    operator_environment(&mut shell);
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.env("QUORATE_SNAPSHOT_ERROR", told.to_string()).env("QUORATE_SNAPSHOT_NODE", &node);
    let (mut child, _registered) = match spawn_registered(shell) {
        Ok(spawned) => spawned,
        Err(error) => return tracing::error!(%error, "etcd-snapshot-on-failure cannot be run"),
    };
    match tokio::time::timeout(COMMAND_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => tracing::info!("etcd-snapshot-on-failure was run"),
        Ok(Ok(status)) => tracing::error!(%status, "etcd-snapshot-on-failure failed"),
        Ok(Err(error)) => tracing::error!(%error, "etcd-snapshot-on-failure was lost"),
        Err(_) => {
            tracing::error!(
                seconds = COMMAND_TIMEOUT.as_secs(),
                "etcd-snapshot-on-failure took too long and was ended"
            );
            if let Some(pid) = child.id() {
                kill_group(pid);
            }
        }
    }
}
